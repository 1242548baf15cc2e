"""What a comparison of training runs measures: times beforehand, a metric on the way."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import keras

from keras_echo.dataset import EchoingPyDataset
from keras_echo.demo.comparison.table import Point, Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.callback import DataEchoCallback
    from keras_echo.demo.comparison.table import Goal
    from keras_echo.memory.batch import Batch
    from keras_echo.tensorboard.event_file import EventWriter


class Recorder(keras.callbacks.Callback):
    """Records a metric over time at the end of each epoch; ends training at the goal.

    Prints a line that goes on with each epoch, and writes TensorBoard scalars.

    Args:
        name: Of the run.
        goal: What to reach.
        dataset: What is trained on.
        evaluate: Returns the metric, given the model and the epoch's logs.
        writer: Where the scalars go.
        max_seconds: When training ends in any case.
        num_steps: When training ends in any case, at the end of that epoch.
    """

    def __init__(
        self,
        name: str,
        goal: Goal,
        dataset: EchoingPyDataset,
        evaluate: Callable[[keras.Model, dict[str, Any]], float],
        writer: EventWriter,
        *,
        max_seconds: float = float("inf"),
        num_steps: float = float("inf"),
    ) -> None:
        super().__init__()
        self._name, self._goal, self._dataset = name, goal, dataset
        self._evaluate = evaluate
        self._writer = writer
        self._max_seconds, self._num_steps = max_seconds, num_steps
        self._curve: list[Point] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Evaluates, tells, and decides whether to go on."""
        value = float(self._evaluate(self.model, logs or {}))
        seconds, stats = time.perf_counter() - self._begin, self._dataset.stats()
        fresh_batches, num_reads = stats.fresh_batches, stats.reads - stats.cache_hits
        steps = (epoch + 1) * len(self._dataset)
        self._curve.append(Point(seconds, steps, fresh_batches, value, num_reads))
        for tag, scalar in (
            (self._goal.metric.replace(" ", "_"), value),
            ("fresh_batches", fresh_batches),
            ("steps_per_second", steps / seconds),
        ):
            self._writer.scalar(f"demo/{tag}", scalar, step=steps, wall_time=time.time())
        print(
            f"\r{self._name:>18}: {seconds:5.1f} s, {steps:5} steps, {fresh_batches:5} fresh "
            f"batches, {self._goal.metric} {self._goal.shown(value)} ",
            end="",
            flush=True,
        )
        is_over = seconds >= self._max_seconds or steps >= self._num_steps
        if is_over or self._goal.reached_by(value):
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Ends the line."""
        print()

    def run(self, adaptive: DataEchoCallback | None = None) -> Run:
        """What was recorded, and how long a step takes as the callback last measured it."""
        decisions = adaptive.decisions if adaptive else []
        step_seconds = decisions[-1].breakdown.downstream_seconds if decisions else None
        return Run(self._name, self._dataset.echo_factor, tuple(self._curve), step_seconds)


class _StepTimer(keras.callbacks.Callback):
    """Times the second half of an epoch, so that compilation is over."""

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        self._first, self._last = num_steps // 2, num_steps - 1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch in (self._first, self._last):
            float((logs or {})["loss"])  # waits for the step, on asynchronous backends too
            self._begin, self._end = getattr(self, "_end", 0.0), time.perf_counter()

    @property
    def step_seconds(self) -> float:
        return (self._end - self._begin) / (self._last - self._first)


def measure_step(model: keras.Model, batch: Batch, num_steps: int) -> float:
    """Seconds of a training step whose batch is there already; trains the model.

    Args:
        model: Compiled.
        batch: What to train on.
        num_steps: Training steps, 3 at least; the second half counts.
    """
    timer = _StepTimer(num_steps)
    with EchoingPyDataset(lambda: iter([batch]), steps_per_epoch=num_steps) as dataset:
        # Not model.fit: that of KerasHub's tasks takes no PyDataset.
        keras.Model.fit(model, dataset, verbose=0, callbacks=[timer])
    return timer.step_seconds


def measure_read(source: keras.utils.PyDataset, num_reads: int) -> float:
    """Seconds that a source takes for a batch, one after the other; the median."""
    seconds = []
    for index in range(num_reads + 1):
        begin = time.perf_counter()
        source[index]
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])  # the first one also opens the connection
