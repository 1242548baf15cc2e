"""Where batches and examples wait for their reuse: in the host's memory or in the accelerator's.

A batch is placed when it is first served, on the training thread, in place of the transfer that
Keras would begin there; one transfer in e remains. Which examples stand in a batch is decided on
the host, wherever they lie, so the stream is the same. A fresh example is transferred once, on the
thread that puts batches together ahead of training, and an echoed step moves indices alone; the
device works that off between training steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras

from keras_echo._messages import expected
from keras_echo.memory.batch import Batch, Waiting, num_bytes_of
from keras_echo.memory.device import DeviceBatch, Placed
from keras_echo.memory.host import HostBatch, HostMemory
from keras_echo.memory.on_jax import ON_JAX
from keras_echo.memory.on_tensorflow import ON_TENSORFLOW
from keras_echo.memory.on_torch import ON_TORCH
from keras_echo.memory.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from keras_echo.memory.example_storage import Memory

AUTO_BYTES = 2**30  # of what waits on the device, or in the shuffle buffer, at most, with "auto"
NUM_PEEKED = 2  # batches that Keras may be served again; see keras_echo.serving.keras_calls

_BACKENDS = {"jax": ON_JAX, "torch": ON_TORCH, "tensorflow": ON_TENSORFLOW}


@dataclass(frozen=True)
class BatchPlacement:
    """Where batches are to wait.

    Attributes:
        place: Puts one array on the device; None: batches wait on the host.
        most_bytes: What a batch that waits there may have; a larger one waits on the host.
    """

    place: Callable[[Any], Placed] | None = None
    most_bytes: float = math.inf

    def begin(self) -> Callable[[Batch, bool], Waiting]:
        """Puts batches where they are to wait; what waits on the host has a pool of its own.

        Returns:
            A function from a batch, and whether its memory is ours, to the batch that waits.
        """
        empty = Pool().empty

        def waiting(batch: Batch, is_ours: bool) -> Waiting:
            if self.place is None or num_bytes_of(batch) > self.most_bytes:
                return HostBatch(batch, is_ours, empty)
            return DeviceBatch(batch, is_ours, self.place)

        return waiting


@dataclass(frozen=True)
class ExamplePlacement:
    """Where echoed examples are to lie.

    Attributes:
        rows: Makes the memory on the device for the rows of an array, and so many of them; None:
            they lie on the host.
        most_bytes: What they may take there; an array that would take more lies on the host.
    """

    rows: Callable[[np.ndarray, int], Memory] | None = None
    most_bytes: float = math.inf

    def allocate(self, like: np.ndarray, capacity: int) -> Memory:
        """Makes the memory for `capacity` rows of an array."""
        array_bytes = like[:1].nbytes * capacity
        # Strings and the like have no place on a device.
        if self.rows is None or like.dtype.kind in "OSU" or array_bytes > self.most_bytes:
            return HostMemory(like, capacity)
        return self.rows(like, capacity)


def batch_placement(placement: str, *, num_waiting: int, augments: bool) -> BatchPlacement:
    """Decides where batches wait.

    - `"host"`: in the host's memory.
    - `"device"`: on the device, but on TensorFlow; `num_waiting` + 2 batches at most.
    - `"auto"`: on the device if `num_waiting` + 2 batches of that size take `AUTO_BYTES` at
      most, and on the host if not. With an augmentation, which works on copies on the host, on
      other backends, and on several processes on the host too.

    Args:
        placement: `"auto"`, `"host"` or `"device"`.
        num_waiting: The most batches that wait for their uses at the same time, without those of a
            shuffle buffer that keeps to `AUTO_BYTES` by itself.
        augments: Whether copies are augmented on the host.

    Raises:
        ValueError: If `"device"` isn't possible.
    """
    backend = _BACKENDS.get(keras.backend.backend())
    is_possible = not (augments or _is_distributed_over_processes()) and backend is not None
    if placement == "device" and not is_possible:
        raise ValueError(
            expected(
                "placement",
                "be 'auto' or 'host' with augment=, which changes each copy on the host, on "
                "several processes, and on backends other than JAX, PyTorch and TensorFlow",
                placement,
                "Leave it out, or augment inside the model",
            )
        )
    if placement == "host" or not is_possible or backend is None:
        return BatchPlacement()
    if placement == "device":
        return BatchPlacement(backend.place)
    return BatchPlacement(backend.place, AUTO_BYTES / (num_waiting + NUM_PEEKED))


def example_placement(placement: str, *, augments: bool) -> ExamplePlacement:
    """Decides where echoed examples lie.

    Args:
        placement: `"host"`; `"device"`, as many bytes there as the buffer takes; or `"auto"`: the
            device if it is an accelerator and the array takes `AUTO_BYTES` there at most, and the
            host if not, or if `"device"` isn't possible.
        augments: Whether copies are augmented on the host.

    Raises:
        ValueError: If `"device"` isn't possible.
    """
    backend = _BACKENDS.get(keras.backend.backend())
    is_possible = not augments and keras.distribution.distribution() is None
    if placement == "device" and not (is_possible and backend):
        raise ValueError(
            expected(
                "placement",
                "be 'auto' or 'host' for echo='example' with augment=, under a keras.distribution, "
                "and on backends other than JAX, PyTorch and TensorFlow",
                placement,
                "Leave it out; to augment on the accelerator, put the layers into the model",
            )
        )
    if placement == "host" or not is_possible or backend is None:
        return ExamplePlacement()
    if placement == "device":
        return ExamplePlacement(backend.rows)
    return ExamplePlacement(backend.rows if backend.is_accelerated() else None, AUTO_BYTES)


def _is_distributed_over_processes() -> bool:
    distribution = keras.distribution.distribution()
    return distribution is not None and distribution.num_processes > 1
