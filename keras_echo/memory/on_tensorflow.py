"""Examples in a tensor of TensorFlow, on the host.

Keras feeds every dataset through `tf.data`, which takes tensors from the host only and makes the
transfer for each step, on threads of its own. It takes the memory of an array, or of a tensor,
without copying it, and believes to be its only owner: a later operation may write its result there
(seen under `MirroredStrategy`). So each use of a batch is a copy on the host; but the rows of
examples may lie in a variable there, and a batch of them is a tensor that isn't copied again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_echo.memory.device import Backend

if TYPE_CHECKING:
    import numpy as np


class TensorFlowMemory:
    """Rows in a `tf.Variable` on the host; see `keras_echo.memory.example_storage.Memory`."""

    def __init__(self, like: np.ndarray, capacity: int) -> None:
        import tensorflow as tf

        with tf.device("CPU"):
            self._rows = tf.Variable(tf.zeros((capacity, *like.shape[1:]), like.dtype))

    def put(self, slots: np.ndarray, rows: np.ndarray) -> None:
        """Copies rows into the slots."""
        import tensorflow as tf

        with tf.device("CPU"):
            self._rows.scatter_update(tf.IndexedSlices(rows, slots))

    def gather(self, slots: np.ndarray) -> Any:
        """A new tensor of the rows in the slots."""
        import tensorflow as tf

        with tf.device("CPU"):
            return tf.gather(self._rows, slots)


ON_TENSORFLOW = Backend(place=None, rows=TensorFlowMemory, is_accelerated=lambda: False)
