"""An emulated accelerator, and readers that sleep: both take a known time, and no processor's.

On two cores that reading and training share, neither has a speed of its own, so nothing that is
measured there can be told from the truth. Here a step sleeps inside of the graph that the backend
compiles, as the processor does while a GPU works; readers sleep too.

- TensorFlow: `tf.numpy_function` in the compiled train function.
- JAX: `jax.pure_callback` in the jitted step, which is dispatched asynchronously.
- PyTorch: in the forward pass. Keras doesn't compile it by default.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

BATCH_SIZE, NUM_FEATURES = 8, 4

Seconds = Callable[[int], float]  # from a batch's index to the seconds that its read takes


class Step(NamedTuple):
    """What the accelerator did.

    Attributes:
        seconds: When it began, by `time.perf_counter`.
        x: What it was given, (`BATCH_SIZE`, `NUM_FEATURES`) float32.
    """

    seconds: float
    x: np.ndarray


class Accelerator:
    """Takes `step_seconds` for a step, and notes when it was given what.

    Args:
        step_seconds: How long it sleeps. A step takes a little more.
        **options: What `compile()` takes, such as `steps_per_execution`.

    Attributes:
        model: A compiled model that runs on it.
        steps: The steps of the last `train()`.
    """

    def __init__(self, step_seconds: float, **options: Any) -> None:
        self.step_seconds = step_seconds
        self.steps: list[Step] = []
        self.model = keras.Sequential(
            [keras.Input((NUM_FEATURES,)), _Work(self._work), keras.layers.Dense(1)]
        )
        self.model.compile("sgd", "mse", **options)

    def train(self, dataset: Any, **options: Any) -> list[Step]:
        """Calls `fit()`; returns its steps."""
        self.steps = []
        self.model.fit(dataset, verbose=0, **options)
        return self.steps

    def in_memory_seconds(self, num_steps: int = 40, num_warm: int = 10) -> float:
        """What a step takes whose batch is in memory: the mean of those after the warm ones."""
        steps = self.train(SleepingSource(0.0, length=num_warm + num_steps + 1))
        return (steps[-1].seconds - steps[num_warm].seconds) / num_steps

    def _work(self, x: Any) -> np.ndarray:
        self.steps.append(Step(time.perf_counter(), np.array(x)))
        time.sleep(self.step_seconds)
        return np.zeros((), "float32")


class SleepingSource(keras.utils.PyDataset):
    """Batches that take a given time to read and none of the processor's.

    Args:
        seconds: A number, or a function of the index that returns one.
        length: Batches in a pass.
        **options: What a `PyDataset` takes, such as `workers`.

    Attributes:
        reads: By index, when a read began and ended, of those by threads.
    """

    def __init__(self, seconds: float | Seconds, length: int = 100_000, **options: Any) -> None:
        super().__init__(**options)
        self.seconds = seconds
        self.length = length
        self.reads: dict[int, tuple[float, float]] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        begin = time.perf_counter()
        time.sleep(self.seconds(index) if callable(self.seconds) else self.seconds)
        self.reads[index] = begin, time.perf_counter()
        return batch_of(index)


def batch_of(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Batch number `index`, unlike any other."""
    x = np.full((BATCH_SIZE, NUM_FEATURES), math.ldexp(index, -20), "float32")
    return x, x[:, :1]


def uneven(mean_seconds: float) -> Seconds:
    """Lognormal times with sigma 1: in each 40 reads the same ones, in an order of their own."""
    normal = statistics.NormalDist()
    lengths = np.exp([normal.inv_cdf((number + 0.5) / 40) for number in range(40)])
    lengths *= mean_seconds / lengths.mean()

    def seconds(index: int) -> float:
        return np.random.default_rng(index // 40).permutation(lengths)[index % 40]

    return seconds


def bursts(mean_seconds: float) -> Seconds:
    """Four short reads and a long one."""
    return lambda index: mean_seconds * (0.25 if index % 5 else 4.0)


def outage(usual_seconds: float, outage_seconds: float, index_of_outage: int) -> Seconds:
    """Always the same time, but for one read."""
    return lambda index: outage_seconds if index == index_of_outage else usual_seconds


class Straggler:
    """The thread that reads first always takes ten times as long as the others."""

    def __init__(self, usual_seconds: float) -> None:
        self.usual_seconds = usual_seconds
        self.lock = threading.Lock()
        self.slow_thread: int | None = None

    def __call__(self, index: int) -> float:
        """Seconds that this thread's read takes."""
        thread = threading.get_ident()
        with self.lock:
            self.slow_thread = self.slow_thread or thread
        return self.usual_seconds * (10 if thread == self.slow_thread else 1)


class SharedBandwidth:
    """Readers share a line that carries one batch in `batch_seconds`."""

    def __init__(self, batch_seconds: float) -> None:
        self.batch_seconds = batch_seconds
        self.lock = threading.Lock()
        self.free_seconds = 0.0  # when the line has carried all that it was asked for

    def __call__(self, index: int) -> float:
        """Seconds until the line has carried this batch too."""
        with self.lock:
            now = time.perf_counter()
            self.free_seconds = max(self.free_seconds, now) + self.batch_seconds
            return self.free_seconds - now


class _Work(keras.layers.Layer):
    """Passes its inputs on; in training, the accelerator works on them first."""

    def __init__(self, work: Callable[[Any], np.ndarray]) -> None:
        super().__init__()
        self.work = work

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Its inputs."""
        return inputs + _worked(self.work, inputs) if training else inputs


def _worked(work: Callable[[Any], np.ndarray], inputs: Any) -> Any:
    """Zero, as soon as the work on the inputs is done."""
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            zero = tf.numpy_function(work, [tf.stop_gradient(inputs)], tf.float32)
            zero.set_shape(())
            return tf.stop_gradient(zero)
        case "jax":
            import jax

            shape = jax.ShapeDtypeStruct((), "float32")
            return jax.lax.stop_gradient(
                jax.pure_callback(work, shape, jax.lax.stop_gradient(inputs))
            )
    if inputs.device.type != "meta":
        work(inputs)
    return 0.0
