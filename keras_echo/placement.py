"""Where a batch waits for its reuse: in the host's memory or in the accelerator's.

The only module that knows the backends' device interfaces; none is imported before a batch is
placed. That happens when a batch is first served, on the training thread, in place of the transfer
that Keras would begin there; one transfer in e remains.

- JAX: the batch is laid out as Keras's trainer does it, by the `keras.distribution` if there is
  one. The transfer is only begun there; an accelerator's overlaps with the steps under way.
- PyTorch: the batch goes to Keras's current device. As with Keras's own transfer, the thread waits
  while the device works off its queue.
- TensorFlow: Keras feeds every dataset through `tf.data`, which takes tensors from the host only
  and makes the transfer for each step, on threads of its own. It takes the memory of an array, or
  of a tensor, without copying it, and believes to be its only owner: a later operation may write
  its result there (seen under `MirroredStrategy`). So there each use is a copy on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np

from keras_echo._messages import expected
from keras_echo.batches import Batch, copied, leaves_of, map_leaves
from keras_echo.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

AUTO_BYTES = 2**30  # of batches that wait on the device, at most, with "auto"
_LOOKED_AT = 2  # batches that Keras may be served again; see keras_echo.keras_calls


class Waiting(Protocol):
    """A batch that waits for its next use."""

    batch: Batch  # on the host
    is_ours: bool  # whether the memory of `batch` may be written to

    def copy(self) -> Batch:
        """A batch of the same values. In-place changes of it are seen by nobody else."""


class HostBatch:
    """A batch that waits in the host's memory and is copied for each use.

    Args:
        batch: The batch.
        is_ours: Whether its memory may be written to.
        empty: Makes the arrays of copies, of a shape and a dtype.
    """

    def __init__(
        self, batch: Batch, is_ours: bool, empty: Callable[..., np.ndarray] = np.empty
    ) -> None:
        self.batch = batch
        self.is_ours = is_ours
        self._empty = empty

    def copy(self) -> Batch:
        """See `Waiting`."""
        return copied(self.batch, self._empty)


@dataclass(frozen=True)
class Placed:
    """One array on the device.

    Attributes:
        use: Returns it for one use.
        is_intact: Whether no earlier use changed or deleted it.
    """

    use: Callable[[], Any]
    is_intact: Callable[[], bool] = lambda: True


class DeviceBatch:
    """A batch that is placed on the device when it is first copied; all copies share that memory.

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

    def copy(self) -> Batch:
        """See `Waiting`."""
        before, self._placed = iter(self._placed), []

        def use(leaf: Any) -> Any:
            placed = next(before, None)
            if placed is None or not placed.is_intact():
                placed = self._place(leaf)
            self._placed.append(placed)
            return placed.use()

        return map_leaves(use, self.batch)


@dataclass(frozen=True)
class Placement:
    """Where batches are to wait.

    Attributes:
        place: Puts one array on the device; None: batches wait on the host.
        num_held: How many wait at most, where they may take `AUTO_BYTES` of the device together and
            those that would take more wait on the host; None: all wait on the device.
    """

    place: Callable[[Any], Placed] | None = None
    num_held: int | None = None

    def begin(self) -> Callable[[Batch, bool], Waiting]:
        """Puts batches where they are to wait; what waits on the host has a pool of its own.

        Returns:
            A function from a batch, and whether its memory is ours, to the batch that waits.
        """
        on_host = partial(HostBatch, empty=Pool().empty)
        if (place := self.place) is None:
            return on_host
        on_device = partial(DeviceBatch, place=place)
        if (num_held := self.num_held) is None:
            return on_device

        def automatic(batch: Batch, is_ours: bool) -> Waiting:
            fits = num_held * _num_bytes(batch) <= AUTO_BYTES
            return (on_device if fits else on_host)(batch, is_ours)

        return automatic


def waiting_place(placement: str, *, shuffle_buffer: int, augments: bool) -> Placement:
    """Decides where batches wait.

    - `"host"`: in the host's memory.
    - `"device"`: see the module; `shuffle_buffer` + 3 batches at most.
    - `"auto"`: on the device if `shuffle_buffer` + 3 batches of that size take `AUTO_BYTES` at
      most, and on the host if not. With an augmentation, which works on copies on the host, on
      other backends, and on several processes on the host too.

    Args:
        placement: `"auto"`, `"host"` or `"device"`.
        shuffle_buffer: Batches in the shuffle buffer behind the echo.
        augments: Whether copies are augmented on the host.

    Raises:
        ValueError: If `"device"` isn't possible.
    """
    is_possible = not (augments or _is_distributed_over_processes())
    if is_possible and keras.backend.backend() == "tensorflow":
        return Placement()
    place = _PLACES.get(keras.backend.backend()) if is_possible else None
    if placement == "device" and place is None:
        raise ValueError(
            expected(
                "placement",
                "be 'auto' or 'host' with augment=, which changes each copy on the host, on "
                "several processes, and on backends other than JAX, PyTorch and TensorFlow",
                placement,
                "Leave it out, or augment inside the model",
            )
        )
    if placement == "host":
        return Placement()
    return Placement(place, None if placement == "device" else shuffle_buffer + 1 + _LOOKED_AT)


def _num_bytes(batch: Batch) -> int:
    return sum(getattr(leaf, "nbytes", 0) for leaf in leaves_of(batch))


def _is_distributed_over_processes() -> bool:
    distribution = keras.distribution.distribution()
    return distribution is not None and distribution.num_processes > 1


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind not in "OSU"


def _on_host(leaf: Any) -> Placed:
    """None, strings, sparse matrices and what else the backend has no array for."""
    return Placed(use=lambda: copied(leaf))


def _by_jax(leaf: Any) -> Placed:
    import jax

    if not _is_array(leaf):
        return _on_host(leaf)
    distribution = keras.distribution.distribution()
    if distribution is None:
        array = jax.device_put(leaf)
    else:
        layout = distribution.get_data_layout(leaf.shape)
        array = keras.distribution.distribute_tensor(leaf, layout)
    return Placed(use=lambda: array, is_intact=lambda: not array.is_deleted())


def _by_torch(leaf: Any) -> Placed:
    import torch

    if not (_is_array(leaf) or torch.is_tensor(leaf)):
        return _on_host(leaf)
    tensor = keras.ops.convert_to_tensor(leaf).detach()
    if tensor.device.type == "cpu" or torch.is_tensor(leaf):
        tensor = tensor.clone()  # otherwise it may be the memory of the batch on the host
    if tensor.is_inference():  # has no version
        return Placed(use=lambda: tensor, is_intact=lambda: False)
    # PyTorch counts the in-place changes of a tensor and of all that share its memory, for
    # autograd (torch.autograd: "In-place correctness checks"). There is no public name for it.
    version = tensor._version
    # Detached each time: a gradient or a mask that a model attaches stays with that use.
    return Placed(use=tensor.detach, is_intact=lambda: tensor._version == version)


_PLACES = {"jax": _by_jax, "torch": _by_torch}
