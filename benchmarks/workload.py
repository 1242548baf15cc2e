"""What the benchmarks share: the model, its data, sources of known speed, a process per backend."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

BACKENDS = ("tensorflow", "jax", "torch")
RATIOS = (0.5, 1.0, 2.0, 4.0, 8.0)
# One core computes and the other is left to the input, as with an accelerator.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def arguments_of(description: str) -> argparse.ArgumentParser:
    """The arguments that all benchmarks have which run once per backend."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    return parser


def in_each_backend(
    file: str, backends: list[str], arguments: list[str], jobs: int = 1
) -> list[Any]:
    """Runs `file --measure` in a process per backend; returns what their last lines say as JSON.

    Args:
        file: The benchmark.
        backends: Which.
        arguments: What the process is given besides.
        jobs: How many run at a time. More than one only where they need next to no processor.
    """

    def run(backend: str) -> Any:
        done = subprocess.run(
            [sys.executable, file, "--measure", *arguments],
            env={**os.environ, **ENVIRONMENT, "KERAS_BACKEND": backend},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        print(f"{backend} done", file=sys.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(run, backends))


def print_result(result: Any) -> None:
    """Prints a process's result and ends it: TensorFlow may hang in the interpreter's shutdown."""
    print(f"\n{json.dumps(result)}", flush=True)
    os._exit(0)


def write_json(path: Path | None, results: list[Any]) -> None:
    """Writes results, if they are wanted."""
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n")


def markdown(header: list[str], rows: list[list[str]], num_texts: int = 1) -> str:
    """A Markdown table, whose first `num_texts` columns are text and whose others are figures."""
    rule = ["---"] * num_texts + ["---:"] * (len(header) - num_texts)
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def convolutional_model(width: int = 16) -> Any:
    """A small image classifier, compiled."""
    import keras

    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(width, 3, activation="relu"),
            keras.layers.Conv2D(2 * width, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def random_batches(count: int = 16, size: int = 64) -> list[tuple]:
    """Batches for that model: float32 (size, 28, 28, 1) and int32 (size,)."""
    import numpy as np

    rng = np.random.default_rng(0)
    return [
        (
            rng.normal(size=(size, 28, 28, 1)).astype("float32"),
            rng.integers(10, size=size).astype("int32"),
        )
        for _ in range(count)
    ]


def source_class(size: int = 64) -> type:
    """The class `Source(read, num_steps, workers)`; its making imports Keras."""
    import keras

    batches = random_batches(size=size)

    class Source(keras.utils.PyDataset):
        """Batches that are there, each after `read()`."""

        def __init__(self, read: Any = None, num_steps: int = 10_000, workers: int = 1) -> None:
            super().__init__(workers=workers)
            self.read, self.num_steps = read, num_steps
            self.seconds: list[float] = []

        def __len__(self) -> int:
            return self.num_steps

        def __getitem__(self, index: int) -> tuple:
            if self.read is not None:
                begin = time.perf_counter()
                self.read()
                self.seconds.append(time.perf_counter() - begin)
            return batches[index % len(batches)]

    return Source


def step_timer_class() -> type:
    """The callback class `StepTimer(first, last)`; its making imports Keras."""
    import keras

    class StepTimer(keras.callbacks.Callback):
        """Times the steps from `first` to `last`, and waits for the device at these two only."""

        def __init__(self, first: int, last: int) -> None:
            super().__init__()
            self.first, self.last = first, last

        def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
            if batch in (self.first, self.last):
                keras.ops.convert_to_numpy(self.model.trainable_variables[-1])
                now = time.perf_counter()
                if batch == self.first:
                    self.begin = now
                else:
                    self.step_seconds = (now - self.begin) / (self.last - self.first)

    return StepTimer
