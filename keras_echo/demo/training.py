"""The demo: one model trained from a slow store: without echoing, adaptively, with a known R."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import keras
import numpy as np

from keras_echo.callback import DataEchoCallback
from keras_echo.dataset import EchoingPyDataset
from keras_echo.demo.comparison.plot import plot
from keras_echo.demo.comparison.recorder import Recorder, measure_read, measure_step
from keras_echo.demo.comparison.table import Goal, Run, table
from keras_echo.demo.data.digits import NUM_TRAINING, as_batch, load_digits
from keras_echo.demo.data.shards import RemoteShards, shard_name, write_shards
from keras_echo.demo.slow_store.store import serve
from keras_echo.reading.cache import Cache
from keras_echo.tensorboard.event_file import EventWriter

if TYPE_CHECKING:
    from keras_echo.memory.batch import Batch

Workers = int | Literal["auto"] | None

_SEED = 0
_SLOWDOWN = 5.0  # reading a batch takes about this many times as long as training on it
_BATCH_SIZE = 32
_STEPS_PER_EPOCH = 50
_CALIBRATION_STEPS = 200
_CALIBRATION_READS = 10
_SHIFT_PIXELS = 2
_CACHE_BYTES = 2**30  # far more than all digits


class _Kind(NamedTuple):
    """How a run is trained.

    Attributes:
        name: How to call it in the middle of a sentence.
        factor: The echoing factor; None for the one that `DataEchoCallback` finds, from 1 on.
        workers: As `EchoingPyDataset`'s.
        cache: The same.
    """

    name: str
    factor: float | None
    workers: Workers = None
    cache: Cache | None = None


def run_demo(
    output: Path,
    *,
    target: float,
    max_seconds: float,
    workers: Workers = None,
    has_cache: bool = False,
) -> str:
    """Trains without echoing, with `DataEchoCallback`, and with a factor picked by hand.

    Writes a plot and TensorBoard logs.

    Args:
        output: Directory for what is written.
        target: Validation accuracy at which a run ends, in 0..1.
        max_seconds: After how long a run ends in any case.
        workers: How many readers another run with `DataEchoCallback` has; None for one.
        has_cache: Whether that run has a cache. It isn't run if it has neither.

    Returns:
        The table of results, and where to find the rest.
    """
    goal = Goal("validation accuracy", target)
    images, labels = load_digits(seed=_SEED)
    digits = {"images": images, "labels": labels}
    validation = as_batch({name: array[NUM_TRAINING:] for name, array in digits.items()})
    batch = as_batch({name: array[:_BATCH_SIZE] for name, array in digits.items()})
    step_seconds = measure_step(_model(), batch, _CALIBRATION_STEPS)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        training = {name: array[:NUM_TRAINING] for name, array in digits.items()}
        num_shards = write_shards(directory, training, _BATCH_SIZE)
        bandwidth = Path(directory, shard_name(0)).stat().st_size / (_SLOWDOWN * step_seconds)
        with serve(directory, bandwidth) as url:
            source = RemoteShards(url, num_shards, as_batch)
            read_seconds = measure_read(source, _CALIBRATION_READS)
            ratio = read_seconds / step_seconds
            print(
                f"Backend {keras.backend.backend()}: a training step takes "
                f"{1000 * step_seconds:.1f} ms, reading a batch {1000 * read_seconds:.1f} ms, "
                f"so R = {ratio:.1f}."
            )
            kinds = [
                _Kind("without echoing", 1.0),
                _Kind("adaptive echoing", None),
                _Kind("hand-picked factor", max(1.0, ratio)),
            ]
            if workers or has_cache:
                kinds.append(_fresh_first(workers, has_cache))
            runs = [_train(source, validation, output, kind, goal, max_seconds) for kind in kinds]
            source.close()
    picture = output / "validation_accuracy.png"
    plot(runs, goal, picture)
    return (
        f"\n{table(runs, goal, ratio)}\n\n"
        f"Plot: {picture}\nTensorBoard: tensorboard --logdir {output}"
    )


def _fresh_first(workers: Workers, has_cache: bool) -> _Kind:
    names = {"cache": has_cache, f"{workers} workers": workers is not None}
    name = " and ".join(name for name, is_wanted in names.items() if is_wanted)
    return _Kind(name, None, workers, Cache(memory_bytes=_CACHE_BYTES) if has_cache else None)


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


def _train(
    source: RemoteShards,
    validation: Batch,
    output: Path,
    kind: _Kind,
    goal: Goal,
    max_seconds: float,
) -> Run:
    """One run."""
    name, factor = kind.name, kind.factor
    logs = output / name.replace(" ", "_")
    with (
        EventWriter(logs) as writer,
        EchoingPyDataset(
            source,
            echo_factor=factor or 1.0,
            augment=_shifted,
            steps_per_epoch=_STEPS_PER_EPOCH,
            seed=_SEED,
            workers=kind.workers,
            cache=kind.cache,
        ) as dataset,
    ):
        recorder = Recorder(
            name,
            goal,
            dataset,
            lambda model, logs: logs["val_accuracy"],
            writer,
            max_seconds=max_seconds,
        )
        # In a directory of its own: TensorBoard follows one event file in each. With a factor that
        # is given, it only measures.
        measure = DataEchoCallback(dataset, logs / "keras_echo", adapt=factor is None)
        _model().fit(
            dataset,
            epochs=sys.maxsize,
            validation_data=validation,
            validation_batch_size=500,
            verbose=0,
            callbacks=[measure, recorder],
        )
        return recorder.run(measure)
