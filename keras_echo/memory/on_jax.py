"""Batches and examples on JAX's devices.

A batch is laid out as Keras's trainer does it, by the `keras.distribution` if there is one. The
transfer is only begun there; an accelerator's overlaps with the steps under way.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_echo.memory.device import Backend, Placed, is_array, kept_on_host

if TYPE_CHECKING:
    from collections.abc import Callable


def _place(leaf: Any) -> Placed:
    import jax

    if not is_array(leaf):
        return kept_on_host(leaf)
    distribution = keras.distribution.distribution()
    if distribution is None:
        array = jax.device_put(leaf)
    else:
        layout = distribution.get_data_layout(leaf.shape)
        array = keras.distribution.distribute_tensor(leaf, layout)
    return Placed(use=lambda: array, is_intact=lambda: not array.is_deleted())


class JaxMemory:
    """Rows in a `jax.Array`; see `keras_echo.memory.example_storage.Memory`.

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


@functools.cache
def _jax_put() -> Callable[..., Any]:
    import jax

    return jax.jit(lambda held, slots, rows: held.at[slots].set(rows), donate_argnums=0)


@functools.cache
def _jax_gather() -> Callable[..., Any]:
    import jax

    return jax.jit(lambda held, slots: held[slots])


def _is_accelerated() -> bool:
    import jax

    return bool(jax.default_backend() != "cpu")


ON_JAX = Backend(_place, JaxMemory, _is_accelerated)
