"""Batches that wait in the accelerator's memory, and what a backend must offer for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_echo.memory.batch import Batch, copied, map_leaves

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.memory.example_storage import Memory


@dataclass(frozen=True)
class Placed:
    """One array on the device.

    Attributes:
        use: Returns it for one use.
        is_intact: Whether no earlier use changed or deleted it.
    """

    use: Callable[[], Any]
    is_intact: Callable[[], bool] = lambda: True


class Backend(NamedTuple):
    """What the modules `keras_echo.memory.on_...` offer; none imports its backend before a use.

    Attributes:
        place: Puts a leaf of a batch on the device; None if `fit()` takes nothing from there.
        rows: Makes the memory for the rows of echoed examples, as `HostMemory` does.
        is_accelerated: Whether what `fit()` takes from there is computed elsewhere than on the
            host's processor.
    """

    place: Callable[[Any], Placed] | None
    rows: Callable[[np.ndarray, int], Memory]
    is_accelerated: Callable[[], bool]


class DeviceBatch:
    """A batch that is placed on the device when it is first used; all uses share that memory.

    An array that a use has changed in place (PyTorch) or donated (JAX) is placed again before the
    next one. For that the batch on the host is kept.

    Args:
        batch: The batch on the host.
        is_ours: Whether its memory may be written to.
        place: Puts one array on the device.
    """

    def __init__(self, batch: Batch, is_ours: bool, place: Callable[[Any], Placed]) -> None:
        self.batch = batch
        self.is_ours = is_ours
        self._place = place
        self._placed: list[Placed] = []  # one for each leaf of the batch

    def use(self) -> Batch:
        """See `Waiting`."""
        before, self._placed = iter(self._placed), []

        def use_of(leaf: Any) -> Any:
            placed = next(before, None)
            if placed is None or not placed.is_intact():
                placed = self._place(leaf)
            self._placed.append(placed)
            return placed.use()

        return map_leaves(use_of, self.batch)


def is_array(leaf: Any) -> bool:
    """Whether it is an array that a device can hold."""
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind not in "OSU"


def kept_on_host(leaf: Any) -> Placed:
    """None, strings, sparse matrices and what else the backend has no array for."""
    return Placed(use=lambda: copied(leaf))
