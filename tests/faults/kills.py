"""Kills a training again and again, and compares what comes of it with one that nobody killed.

    python tests/faults/kills.py --kind batch --kills 50

Each life is a process of its own, forked before the backend has begun anything. What a life has
trained is part of its weights: the model notes the batches that it sees. So equal weights say that
each batch was trained on once, in its place.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from keras_echo import BackupAndRestore, DataEchoCallback, EchoingPyDataset

NUM_BATCHES, NUM_EPOCHS = 11, 3
LIFE_SECONDS = 120  # after which a life that neither ends nor gets on has failed
KINDS = {
    "batch": {"echo_factor": 2.5},
    "example": {"echo_factor": 2.5, "echo": "example"},
    "augmented": {"echo_factor": 2, "augment": lambda batch, rng: augmented(batch, rng)},
    "processes": {"echo_factor": 1.5, "use_multiprocessing": True},
}


def augmented(batch, rng):
    x, y = batch
    return x + rng.normal(size=x.shape).astype("float32") * 0, y + rng.normal(size=y.shape) * 0.1


class Source(keras.utils.PyDataset):
    def __init__(self):
        super().__init__(workers=2)

    def __len__(self):
        return NUM_BATCHES

    def __getitem__(self, index):
        time.sleep(0.002)
        x = (np.arange(4.0)[:, None] + 4 * index).astype("float32")
        return x, np.sin(x)


class Training(keras.Model):
    """Random, with momentum; `seen` are the largest inputs of its steps."""

    def __init__(self):
        super().__init__()
        self.inner = keras.layers.Dense(8, kernel_initializer=keras.initializers.GlorotUniform(1))
        self.dropout = keras.layers.Dropout(0.3, seed=2)
        self.outer = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(3))
        self.seen = self.add_weight(shape=(NUM_BATCHES * NUM_EPOCHS,), trainable=False)
        self.seen.assign(np.zeros(self.seen.shape))
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, dtype="int32")
        self(np.zeros((1, 1), "float32"))
        self.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])

    def call(self, inputs, training=False):
        if training:
            row = keras.ops.one_hot(self.count, self.seen.shape[0])
            self.seen.assign(self.seen + row * keras.ops.max(inputs))
            self.count.assign(self.count + 1)
        return self.outer(self.dropout(self.inner(inputs / 50.0), training=training))


class Progress(keras.callbacks.Callback):
    """Counts the steps of a life where its parent sees it."""

    def __init__(self, counter):
        super().__init__()
        self.counter, self.num_steps = counter, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.num_steps += 1
        self.counter[:8] = struct.pack("q", self.num_steps)


def live(directory, kind, save_freq, counter):
    """Trains to the end, and writes what came of it."""
    model, dataset = Training(), EchoingPyDataset(Source(), seed=5, **KINDS[kind])
    echo = DataEchoCallback(dataset, adapt=False, profile_freq=7, profile_steps=3, verbose=0)
    backup = BackupAndRestore(echo, directory / "backup", save_freq=save_freq)
    with dataset:
        history = model.fit(
            dataset, epochs=NUM_EPOCHS, callbacks=[Progress(counter), echo, backup], verbose=0
        )
    variables = [*model.variables, *model.optimizer.variables]
    values = [keras.ops.convert_to_numpy(variable) for variable in variables]
    # Empty where the life before had trained all epochs, and was killed at the very end.
    last = [history.history[name][-1] for name in ("loss", "mae") if history.epoch]
    np.savez(directory / "result.npz", *values, np.array(last))


def born(directory, kind, save_freq, counter):
    """Begins a life in a process of its own; returns its number."""
    counter[:8] = struct.pack("q", 0)
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.setsid()
        live(directory, kind, save_freq, counter)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def reached(counter, num_steps, process):
    """Waits until a life has come so far; returns its exit status if it ended before."""
    deadline = time.monotonic() + LIFE_SECONDS
    while struct.unpack("q", counter[:8])[0] < num_steps:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return "hung"
        time.sleep(0.0005)
    return None


def left(session):
    """The processes of a life that is over."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def wait_until_none_is_left(session, seconds=20):
    deadline = time.monotonic() + seconds
    while found := left(session):
        if time.monotonic() > deadline:
            return found
        time.sleep(0.01)
    return []


def trained(directory, kind, save_freq, rng, num_kills, counter, report):
    """One training, killed up to so many times; what came of it, or None if it failed."""
    while True:
        process = born(directory, kind, save_freq, counter)
        is_killed = report["kills"] < num_kills
        # At any step from the first one on, and in what surrounds them.
        target = rng.randint(0, 2 * NUM_BATCHES) if is_killed else 10**9
        status = reached(counter, target, process)
        if status is None:
            time.sleep(rng.random() * 0.03)
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            report["kills"] += 1
            report["killed_at"].append(struct.unpack("q", counter[:8])[0])
        if left_over := wait_until_none_is_left(process):
            report["left"].append(left_over)
        if status is not None:
            if status != 0:
                report["failed"].append(status)
                return None
            with np.load(directory / "result.npz", allow_pickle=False) as loaded:
                return [loaded[name] for name in loaded]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--save-freq", type=lambda text: text if text == "epoch" else int(text))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    save_freq = arguments.save_freq or 3
    rng = random.Random(arguments.seed)
    counter = mmap.mmap(-1, 8)
    report = {"kind": arguments.kind, "kills": 0, "killed_at": [], "failed": [], "left": []}
    report |= {"trainings": 0, "wrong": 0, "files": []}
    root = Path(tempfile.mkdtemp(prefix="keras_echo-kills-"))
    tempfile.tempdir = str(root)  # what a killed process leaves there is nobody's
    try:
        paths = [root / "undisturbed", root / "killed"]
        paths[0].mkdir()
        expected = trained(paths[0], arguments.kind, save_freq, rng, 0, counter, report)
        while report["kills"] < arguments.kills and not report["failed"]:
            shutil.rmtree(paths[1], ignore_errors=True)
            paths[1].mkdir()
            result = trained(
                paths[1], arguments.kind, save_freq, rng, arguments.kills, counter, report
            )
            report["trainings"] += 1
            report["wrong"] += result is None or any(
                value.size and not np.array_equal(value, other)
                for value, other in zip(result, expected, strict=True)
            )
            report["files"] += sorted({p.name for p in paths[1].iterdir()} - {"result.npz"})
    finally:
        shutil.rmtree(root, ignore_errors=True)
    sys.stdout.write(f"{json.dumps(report)}\n")
    sys.exit(report["wrong"] or bool(report["failed"] or report["left"] or report["files"]))


if __name__ == "__main__":
    main()
