"""The change that a Keras project needs: shown as a diff, and run without and with it.

    pip install "keras-echo[examples]"  # and a backend
    python existing_project.py --backend jax

The project below was not written with echoing in mind: a `PyDataset` that reads over a network, a
model, and `fit`. `train` is what it was; `train_echoing` is what it becomes. All the rest of this
file only compares the two, on a server whose bandwidth is limited.
"""

import argparse
import difflib
import inspect
import os
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, backend = parser.add_argument, os.environ.get("KERAS_BACKEND", "jax")
    add("--backend", choices=("tensorflow", "jax", "torch"), default=backend)
    add("--data", type=Path, metavar="DIR", help="read shards from here, and at full speed")
    add("--slowdown", type=float, default=5.0, help="R of the simulated server")
    add("--log-dir", type=Path, default=Path("existing_project_logs"), metavar="DIR")
    add("--quick", action="store_true", help="a few steps of everything")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    OPTIONS = parse()
    os.environ["KERAS_BACKEND"] = OPTIONS.backend  # Keras reads it when it is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from safetensors.numpy import load, load_file

import keras_echo
from keras_echo.demo.comparison.plot import plot
from keras_echo.demo.comparison.recorder import measure_read, measure_step
from keras_echo.demo.comparison.table import Goal, Point, Run, table
from keras_echo.demo.data.digits import load_digits
from keras_echo.demo.data.shards import write_shards
from keras_echo.demo.slow_store.store import serve

# The project.


class Digits(keras.utils.PyDataset):
    """Batches of handwritten digits, each a file on a server."""

    def __init__(self, url: str, first: int, last: int, **options: int) -> None:
        super().__init__(**options)
        self.urls = [f"{url}/shard-{i:05d}.safetensors" for i in range(first, last)]

    def __len__(self) -> int:
        return len(self.urls)

    def __getitem__(self, index: int) -> tuple:
        with urllib.request.urlopen(self.urls[index], timeout=60) as response:
            batch = load(response.read())
        return batch["images"], batch["labels"].astype("int32")


def build_model(num_steps: int) -> keras.Model:
    """A small convolutional network."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, num_steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def train(digits, validation, epochs, log_dir, callbacks):
    """Trains for some epochs."""
    model = build_model(epochs * len(digits))
    history = keras.callbacks.CSVLogger(log_dir / "history.csv")
    model.fit(
        digits,
        epochs=epochs,
        validation_data=validation,
        verbose=0,
        callbacks=[history, *callbacks],
    )


# The project with echoing.


def train_echoing(digits, validation, epochs, log_dir, callbacks):
    """Trains for some epochs."""
    digits = keras_echo.EchoingPyDataset(digits, echo="example")
    echo = keras_echo.DataEchoCallback(digits, log_dir)
    model = build_model(epochs * len(digits))
    history = keras.callbacks.CSVLogger(log_dir / "history.csv")
    model.fit(
        digits,
        epochs=epochs,
        validation_data=validation,
        verbose=0,
        callbacks=[echo, history, *callbacks],
    )


# The comparison.

GOAL = Goal("validation accuracy", 0.96)


def project(train: Callable[..., None]) -> str:
    """The source of the whole project, with one of the two functions as its `train`."""
    imports = ["import urllib.request\n", "import keras", "from safetensors.numpy import load\n"]
    if train is train_echoing:
        imports.insert(2, "import keras_echo")
    parts = ("\n".join(imports), *map(inspect.getsource, (Digits, build_model, train)))
    return "\n\n".join(parts).replace("train_echoing", "train")


def change() -> str:
    """What must be changed in it, as a unified diff."""
    before, after = (project(f).splitlines(keepends=True) for f in (train, train_echoing))
    return "".join(difflib.unified_diff(before, after, "a/project.py", "b/project.py"))


class Counted(Digits):
    """Counts what is read."""

    num_read = 0

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads a batch, on one thread at a time: it has one worker."""
        self.num_read += 1
        return super().__getitem__(index)


class Progress(keras.callbacks.Callback):
    """Records the validation accuracy over time."""

    def __init__(self, name: str, digits: Counted) -> None:
        super().__init__()
        self.name, self.digits = name, digits
        self.curve: list[Point] = []

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts the clock."""
        self.begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        """Records a point and prints it."""
        seconds, steps = time.perf_counter() - self.begin, (epoch + 1) * self.params["steps"]
        accuracy, self.factor = logs["val_accuracy"], logs.get("echo_factor", 1.0)
        self.curve.append(Point(seconds, steps, self.digits.num_read, accuracy))
        print(f"{self.name:>16}: {seconds:5.1f} s, {steps:5} steps, {GOAL.shown(accuracy)}")


def main(options: argparse.Namespace) -> None:
    """Prints the change, trains without and with it, and compares."""
    print(f"The change:\n\n{change()}")
    epochs, batch_size, num_shards = (2, 8, 40) if options.quick else (8, 32, 156)
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.data or Path(temporary)
        if not options.data:
            images, labels = (array[: num_shards * batch_size] for array in load_digits())
            write_shards(directory, {"images": images, "labels": labels}, batch_size)
        files = sorted(directory.glob("*.safetensors"))
        num_training = len(files) * 4 // 5
        shards = [*map(load_file, files[num_training:])]
        images, labels = (
            np.concatenate([s[name] for s in shards]) for name in ("images", "labels")
        )
        step_seconds = measure_step(
            build_model(100), (images[:batch_size], labels[:batch_size]), 30
        )
        bandwidth = files[0].stat().st_size / (options.slowdown * step_seconds)
        with serve(directory, 1e12 if options.data else bandwidth) as url:
            read_seconds = measure_read(Digits(url, 0, num_training), min(8, num_training - 1))
            runs = []
            for name, function in (("without echoing", train), ("with echoing", train_echoing)):
                logs = options.log_dir / name.replace(" ", "_")
                logs.mkdir(parents=True, exist_ok=True)
                digits = Counted(url, 0, num_training)
                progress = Progress(name, digits)
                function(digits, (images, labels), epochs, logs, [progress])
                runs.append(Run(name, progress.factor, tuple(progress.curve)))
    picture = options.log_dir / "validation_accuracy.png"
    plot(runs, GOAL, picture)
    print(f"\n{table(runs, GOAL, read_seconds / step_seconds)}\n\nPlot: {picture}")
    print(f"TensorBoard: tensorboard --logdir {options.log_dir}")


if __name__ == "__main__":
    main(OPTIONS)
