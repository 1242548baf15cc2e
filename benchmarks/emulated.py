"""An emulated accelerator: a model whose step takes a given time and none of the processor's.

On two cores that reading and training share, neither has a speed of its own, so nothing that is
measured there can be told from the truth. Here a step sleeps inside of the graph that the backend
compiles, as the processor does while a GPU works; readers sleep too (`SleepingSource`). So both
times are known.

- TensorFlow: `tf.numpy_function` in the compiled train function.
- JAX: `jax.pure_callback` in the jitted step, which is dispatched asynchronously.
- PyTorch: in the forward pass. Keras doesn't compile it by default.
"""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np

NUM_FEATURES = 4


class Sleep(keras.layers.Layer):
    """Passes its inputs on, and sleeps in training."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Its inputs, so many seconds later."""
        return inputs + _slept(self.seconds, inputs) if training else inputs


def emulated_model(step_seconds: float, **options: Any) -> keras.Model:
    """A compiled model whose optimizer step sleeps for `step_seconds`, and does little else."""
    model = keras.Sequential(
        [keras.Input((NUM_FEATURES,)), Sleep(step_seconds), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse", **options)
    return model


class SleepingSource(keras.utils.PyDataset):
    """Batches that take a given time to read and none of the processor's.

    Args:
        seconds: A number, or a function of the index that returns one.
        length: Batches in a pass.
        **options: What a `PyDataset` takes, such as `workers`.
    """

    def __init__(self, seconds: Any, length: int = 10_000, **options: Any) -> None:
        super().__init__(**options)
        self.seconds = seconds
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(self.seconds(index) if callable(self.seconds) else self.seconds)
        x = np.full((8, NUM_FEATURES), index % 7, "float32")
        return x, x[:, :1]


def _slept(seconds: float, inputs: Any) -> Any:
    """Zero, so many seconds after the inputs are there."""

    def sleep(_: Any) -> np.ndarray:
        time.sleep(seconds)
        return np.zeros((), "float32")

    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            zero = tf.numpy_function(sleep, [tf.stop_gradient(inputs[0, 0])], tf.float32)
            zero.set_shape(())
            return tf.stop_gradient(zero)
        case "jax":
            import jax

            shape = jax.ShapeDtypeStruct((), "float32")
            zero = jax.pure_callback(sleep, shape, jax.lax.stop_gradient(inputs[0, 0]))
            return jax.lax.stop_gradient(zero)
    if inputs.device.type != "meta":
        time.sleep(seconds)
    return 0.0
