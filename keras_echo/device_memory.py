"""Where echoed examples lie on the accelerator, so that an echoed step moves indices alone.

Which examples stand in a batch is decided on the host, as for `keras_echo.storage.HostMemory`: the
stream is the same. A fresh example is transferred once. Everything here runs on the thread that
puts batches together ahead of training; the device works it off between training steps.

On TensorFlow, Keras feeds every dataset through `tf.data`, which takes tensors from the host only:
there the examples lie in a variable on the host, and a batch is a tensor that isn't copied again.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_echo._messages import expected
from keras_echo.placement import AUTO_BYTES
from keras_echo.storage import HostMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.storage import Memory


def example_memory(placement: str, *, augments: bool) -> Callable[[np.ndarray, int], Memory]:
    """Decides where echoed examples lie.

    Args:
        placement: `"host"`; `"device"`, as many bytes there as the buffer takes; or `"auto"`: the
            device if it is an accelerator and the array takes `AUTO_BYTES` there at most, and the
            host if not, or if `"device"` isn't possible.
        augments: Whether copies are augmented on the host.

    Returns:
        What makes the memory for one array, like `HostMemory`.

    Raises:
        ValueError: If `"device"` isn't possible.
    """
    memory = None
    if not augments and keras.distribution.distribution() is None:
        memory = _MEMORIES.get(keras.backend.backend())
    if placement == "device" and memory is None:
        raise ValueError(
            expected(
                "placement",
                "be 'auto' or 'host' for echo='example' with augment=, under a keras.distribution, "
                "and on backends other than JAX, PyTorch and TensorFlow",
                placement,
                "Leave it out; to augment on the accelerator, put the layers into the model",
            )
        )
    if memory is None or not (placement == "device" or (placement == "auto" and _accelerates())):
        return HostMemory

    def allocate(like: np.ndarray, capacity: int) -> Memory:
        num_bytes = like[:1].nbytes * capacity
        # Strings and the like have no place on a device.
        if like.dtype.kind in "OSU" or (placement == "auto" and num_bytes > AUTO_BYTES):
            return HostMemory(like, capacity)
        return memory(like, capacity)

    return allocate


def _accelerates() -> bool:
    """Whether what `tf.data` doesn't feed is computed elsewhere than on the host's processor."""
    match keras.backend.backend():
        case "jax":
            import jax

            return jax.default_backend() != "cpu"
        case "torch":
            return str(keras.ops.zeros(()).device.type) != "cpu"
    return False


class JaxMemory:
    """Rows in a `jax.Array`; see `keras_echo.storage.Memory`.

    The array is donated when rows are put in, so that this happens in place.
    """

    def __init__(self, like: np.ndarray, capacity: int) -> None:
        import jax

        dtype = jax.dtypes.canonicalize_dtype(like.dtype)  # without a warning for 64 bits
        self._rows = jax.numpy.zeros((capacity, *like.shape[1:]), dtype)

    def put(self, slots: np.ndarray, rows: np.ndarray) -> None:
        """Copies rows into the slots."""
        if not len(slots):
            return
        # To the next power of two, by repetition: each size would be compiled for itself.
        padded = np.minimum(np.arange(1 << (len(slots) - 1).bit_length()), len(slots) - 1)
        self._rows = _jax_put()(self._rows, slots[padded], rows[padded])

    def gather(self, slots: np.ndarray) -> Any:
        """A new array of the rows in the slots."""
        return _jax_gather()(self._rows, slots)


class TorchMemory:
    """Rows in a `torch.Tensor` on Keras's device; see `keras_echo.storage.Memory`."""

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


class TensorFlowMemory:
    """Rows in a `tf.Variable` on the host; see `keras_echo.storage.Memory`."""

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


@functools.cache
def _jax_put() -> Callable[..., Any]:
    import jax

    return jax.jit(lambda held, slots, rows: held.at[slots].set(rows), donate_argnums=0)


@functools.cache
def _jax_gather() -> Callable[..., Any]:
    import jax

    return jax.jit(lambda held, slots: held[slots])


_MEMORIES: dict[str, Callable[[np.ndarray, int], Memory]] = {
    "jax": JaxMemory,
    "torch": TorchMemory,
    "tensorflow": TensorFlowMemory,
}
