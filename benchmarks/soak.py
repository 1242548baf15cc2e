"""Whether a long training keeps its memory, threads, processes and open files: `make soak`.

    KERAS_BACKEND=jax python benchmarks/soak.py [--steps N] [--without echo|callback] [--json FILE]

Steps are cheap, so that many fit into minutes, and profiler windows follow each other as fast as
`profile_freq` says, without the callback's usual limit on the time that they take. The exit status
is 1 if anything grew. `--without callback` and `--without echo` (the source alone) tell whose
growth it is.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from workload import markdown, write_json

import keras_echo
from keras_echo.adapting import schedule

MOST_GROWTH = 1.0  # MB per 10,000 steps
WARM_SHARE = 0.2  # of the samples, which may grow: compilation, pools, caches
_BATCH_SIZE, _NUM_FEATURES = 8, 16


class Sample(NamedTuple):
    """What the process holds after `step` steps; memory is resident, in MB."""

    step: int
    memory: float
    threads: int
    processes: int
    files: int


COUNTS = ("threads", "processes", "files")


def sample(step):
    """What this process holds now; Linux only."""
    own = Path("/proc/self")
    pages = int((own / "statm").read_text().split()[1])
    tasks = list((own / "task").iterdir())
    children = sum(len((task / "children").read_text().split()) for task in tasks if task.exists())
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    # One of the open files is the directory that is being listed.
    return Sample(step, memory, len(tasks), children, len(list((own / "fd").iterdir())) - 1)


def growth(samples):
    """MB per 10,000 steps, of a line through the samples after the warm ones."""
    warm = samples[math.ceil(WARM_SHARE * len(samples)) :]
    return 1e4 * np.polyfit([one.step for one in warm], [one.memory for one in warm], 1)[0]


def faults(samples):
    """What grew, in words; nothing if all is well."""
    found = []
    if (per_steps := growth(samples)) > MOST_GROWTH:
        found.append(f"memory grows by {per_steps:.2f} MB per 10,000 steps")
    fifth = math.ceil(WARM_SHARE * len(samples))
    for name in COUNTS:
        early = np.median([getattr(one, name) for one in samples[fifth : 2 * fifth]])
        late = np.median([getattr(one, name) for one in samples[-fifth:]])
        if late > early + 1:
            found.append(f"{name} grow from {early:.0f} to {late:.0f}")
    return found


class Cheap(keras.utils.PyDataset):
    """Batches that cost next to nothing."""

    def __len__(self):
        return 10_000

    def __getitem__(self, index):
        x = np.full((_BATCH_SIZE, _NUM_FEATURES), index % 7, "float32")
        return x, x[:, :1]


class Sampling(keras.callbacks.Callback):
    """Takes a sample every so many steps."""

    def __init__(self, every):
        super().__init__()
        self.samples = []
        self._every = every
        self._step = 0

    def on_train_batch_begin(self, batch, logs=None):
        """Keras calls this."""
        self._step += 1
        if self._step % self._every == 0:
            self.samples.append(sample(self._step))


def soak(num_steps, every, profile_freq, without, log_dir):
    """Trains; returns the samples and the number of windows that opened."""
    schedule.BUDGET = math.inf  # a limit on the time of windows would leave most of them out
    model = keras.Sequential([keras.Input((_NUM_FEATURES,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    source, sampling = Cheap(workers=2), Sampling(every)
    callbacks = [sampling]
    data = source
    if without != "echo":
        data = keras_echo.EchoingPyDataset(source, echo_factor=2)
    if without is None:
        callbacks += [
            keras_echo.DataEchoCallback(data, log_dir, profile_freq=profile_freq, verbose=0)
        ]
    epochs = max(1, num_steps // len(source))
    model.fit(
        data, epochs=epochs, steps_per_epoch=num_steps // epochs, callbacks=callbacks, verbose=0
    )
    return sampling.samples, 0 if without else len(callbacks[1].decisions)


def table(samples):
    """The samples, about twenty of them."""
    rows = [
        [f"{one.step:,}", f"{one.memory:.1f}", *(str(getattr(one, name)) for name in COUNTS)]
        for one in samples[:: math.ceil(len(samples) / 20)]
    ]
    return markdown(["steps", "memory, MB", *COUNTS], rows, num_texts=0)


def main():
    """Trains, prints what was held, and exits with 1 if it grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=1_000, help="steps between two samples")
    parser.add_argument("--profile-freq", type=int, default=500)
    parser.add_argument("--without", choices=["echo", "callback"])
    parser.add_argument("--trace-memory", action="store_true", help="print who allocates")
    parser.add_argument("--json", type=Path, help="where to write the results")
    args = parser.parse_args()
    if args.trace_memory:
        tracemalloc.start(8)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as log_dir:
        samples, num_windows = soak(
            args.steps, args.every, args.profile_freq, args.without, log_dir
        )
    seconds = time.perf_counter() - began
    write_json(args.json, [one._asdict() for one in samples])
    print(table(samples))
    print(
        f"{keras.backend.backend()}: {args.steps:,} steps in {seconds:.0f} s, "
        f"{num_windows} windows, {growth(samples):+.2f} MB per 10,000 steps"
    )
    if args.trace_memory:
        for found in tracemalloc.take_snapshot().statistics("traceback")[:15]:
            print(f"{found.size / 1e6:.2f} MB", *found.traceback.format(), sep="\n")
    problems = faults(samples)
    print(*problems, sep="\n")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
