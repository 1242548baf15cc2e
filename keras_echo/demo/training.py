"""The demo: one model trained from a slow store: without echoing, adaptively, with a known R."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_echo.callback import DataEchoCallback
from keras_echo.dataset import EchoingPyDataset
from keras_echo.demo.digits import SHARDS, RemoteShards, shard_name, write_digits
from keras_echo.demo.plot import plot
from keras_echo.demo.report import Point, Run, percent, table
from keras_echo.demo.store import serve
from keras_echo.tensorboard.writer import EventWriter

if TYPE_CHECKING:
    from keras_echo.demo.digits import Batch

_SEED = 0
_SLOWDOWN = 5.0  # reading a batch takes about this many times as long as training on it
_STEPS_PER_EPOCH = 50
_CALIBRATION_STEPS = 200
_CALIBRATION_READS = 10
_SHUFFLE_BUFFER = 32
_SHIFT_PIXELS = 2


def run_demo(output: Path, *, target: float, max_seconds: float) -> str:
    """Trains without echoing, with `DataEchoCallback`, and with a factor picked by hand.

    Writes a plot and TensorBoard logs.

    Args:
        output: Directory for what is written.
        target: Validation accuracy at which a run ends, in 0..1.
        max_seconds: After how long a run ends in any case.

    Returns:
        The table of results, and where to find the rest.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        validation = write_digits(directory)
        step_seconds = _measure_step(Path(directory))
        bandwidth = Path(directory, shard_name(0)).stat().st_size / (_SLOWDOWN * step_seconds)
        with serve(directory, bandwidth) as url:
            read_seconds = _measure_read(url)
            ratio = read_seconds / step_seconds
            print(
                f"Backend {keras.backend.backend()}: a training step takes "
                f"{1000 * step_seconds:.1f} ms, reading a batch {1000 * read_seconds:.1f} ms, "
                f"so R = {ratio:.1f}."
            )
            runs = [
                _train(url, validation, output, name, factor, target, max_seconds)
                for name, factor in (
                    ("without echoing", 1.0),
                    ("adaptive echoing", None),
                    ("hand-picked factor", max(1.0, ratio)),
                )
            ]
    picture = output / "validation_accuracy.png"
    plot(runs, target, picture)
    return (
        f"\n{table(runs, target, ratio)}\n\n"
        f"Plot: {picture}\nTensorBoard: tensorboard --logdir {output}"
    )


def _model() -> keras.Model:
    keras.utils.set_random_seed(_SEED)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def _shifted(batch: Batch, rng: np.random.Generator) -> Batch:
    """Moves each image by up to two pixels, which is what the digits' margins allow."""
    images, labels = batch
    height, width = images.shape[1:3]
    rows, columns = rng.integers(-_SHIFT_PIXELS, _SHIFT_PIXELS + 1, (2, len(images), 1))
    return (
        images[
            np.arange(len(images))[:, None, None],
            ((np.arange(height) - rows) % height)[:, :, None],
            ((np.arange(width) - columns) % width)[:, None, :],
        ],
        labels,
    )


class _StepTimer(keras.callbacks.Callback):
    """Times the second half of the steps, so that compilation is over."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch in (_CALIBRATION_STEPS // 2, _CALIBRATION_STEPS - 1):
            float((logs or {})["loss"])  # waits for the step, on asynchronous backends too
            self.begin, self.end = getattr(self, "end", 0.0), time.perf_counter()

    @property
    def step_seconds(self) -> float:
        return (self.end - self.begin) / (_CALIBRATION_STEPS - 1 - _CALIBRATION_STEPS // 2)


def _measure_step(directory: Path) -> float:
    """Seconds of a training step whose batch is there already."""
    shards = [np.load(directory / shard_name(index)) for index in range(SHARDS)]
    images = np.concatenate([shard["images"] for shard in shards]).astype("float32") / 255
    labels = np.concatenate([shard["labels"] for shard in shards]).astype("int32")
    timer = _StepTimer()
    with EchoingPyDataset((images, labels), steps_per_epoch=_CALIBRATION_STEPS) as dataset:
        _model().fit(dataset, verbose=0, callbacks=[timer])
    return timer.step_seconds


def _measure_read(url: str) -> float:
    """Seconds that the store takes for a batch."""
    source, seconds = RemoteShards(url), []
    for index in range(_CALIBRATION_READS + 1):
        begin = time.perf_counter()
        source[index]
        seconds.append(time.perf_counter() - begin)
    source.close()
    return statistics.median(seconds[1:])  # the first one also opens the connection


class _Recorder(keras.callbacks.Callback):
    """Records the validation accuracy over time, and ends training at the target."""

    def __init__(
        self,
        name: str,
        dataset: EchoingPyDataset,
        writer: EventWriter,
        target: float,
        max_seconds: float,
    ) -> None:
        super().__init__()
        self.curve: list[Point] = []
        self._name = name
        self._dataset = dataset
        self._writer = writer
        self._target = target
        self._max_seconds = max_seconds

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        seconds, stats = time.perf_counter() - self._begin, self._dataset.stats()
        accuracy = float((logs or {})["val_accuracy"])
        point = Point(seconds, (epoch + 1) * _STEPS_PER_EPOCH, stats.fresh_batches, accuracy)
        self.curve.append(point)
        for tag, value in (
            ("validation_accuracy", accuracy),
            ("fresh_batches", point.fresh_batches),
            ("steps_per_second", point.steps / seconds),
        ):
            self._writer.scalar(f"demo/{tag}", value, step=point.steps, wall_time=time.time())
        print(
            f"\r{self._name:>18}: {seconds:5.1f} s, {point.steps:5} steps, "
            f"{point.fresh_batches:5} fresh batches, validation accuracy {percent(accuracy)} ",
            end="",
            flush=True,
        )
        if accuracy >= self._target or seconds >= self._max_seconds:
            self.model.stop_training = True
            print(file=sys.stdout)


def _train(
    url: str,
    validation: Batch,
    output: Path,
    name: str,
    factor: float | None,
    target: float,
    max_seconds: float,
) -> Run:
    """One run; without a factor, `DataEchoCallback` finds it, from 1 on."""
    source = RemoteShards(url)
    logs = output / name.replace(" ", "_")
    with (
        EventWriter(logs) as writer,
        EchoingPyDataset(
            source,
            echo_factor=factor or 1.0,
            shuffle_buffer=0 if factor == 1 else _SHUFFLE_BUFFER,  # there are no copies to part
            augment=_shifted,
            steps_per_epoch=_STEPS_PER_EPOCH,
            seed=_SEED,
        ) as dataset,
    ):
        recorder = _Recorder(name, dataset, writer, target, max_seconds)
        # In a directory of its own: TensorBoard follows one event file in each.
        adapting = [] if factor else [DataEchoCallback(dataset, logs / "keras_echo")]
        _model().fit(
            dataset,
            epochs=sys.maxsize,
            validation_data=validation,
            validation_batch_size=500,
            verbose=0,
            callbacks=[*adapting, recorder],
        )
    source.close()
    return Run(name, dataset.echo_factor, tuple(recorder.curve))
