"""Batches and examples on Keras's current device of PyTorch.

As with Keras's own transfer, the thread waits while the device works off its queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from keras_echo.memory.device import Backend, Placed, is_array, kept_on_host

if TYPE_CHECKING:
    import numpy as np


def _place(leaf: Any) -> Placed:
    import torch

    if not (is_array(leaf) or torch.is_tensor(leaf)):
        return kept_on_host(leaf)
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


class TorchMemory:
    """Rows in a tensor on Keras's device; see `keras_echo.memory.example_storage.Memory`."""

    def __init__(self, like: np.ndarray, capacity: int) -> None:
        rows = keras.ops.convert_to_tensor(like[:1])
        self._rows = rows.new_zeros((capacity, *like.shape[1:]))

    def put(self, slots: np.ndarray, rows: np.ndarray) -> None:
        """Copies rows into the slots."""
        self._rows[self._indices(slots)] = keras.ops.convert_to_tensor(rows).to(self._rows.dtype)

    def gather(self, slots: np.ndarray) -> Any:
        """A new tensor of the rows in the slots."""
        return self._rows.index_select(0, self._indices(slots))

    def _indices(self, slots: np.ndarray) -> Any:
        return keras.ops.convert_to_tensor(slots, dtype="int64")


def _is_accelerated() -> bool:
    return str(keras.ops.zeros(()).device.type) != "cpu"


ON_TORCH = Backend(_place, TorchMemory, _is_accelerated)
