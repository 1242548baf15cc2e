"""What the processes of the fault tests do: `python scenarios.py NAME DIRECTORY OPTIONS`.

Each function is a scenario. It says where it stands in lines of a word and JSON; see `Process`.
"""

import contextlib
import faulthandler
import gc
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np

import keras_echo

NUM_FEATURES = 4


def say(word, value):
    """Tells the test."""
    print(word, json.dumps(value), flush=True)


def tiny_model():
    """A compiled model of one layer."""
    model = keras.Sequential([keras.Input((NUM_FEATURES,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


class Numbered(keras.utils.PyDataset):
    """Batch i is full of i, and takes `read_seconds` to read."""

    def __init__(self, length, read_seconds=0.0, **kwargs):
        super().__init__(**kwargs)
        self.length, self.read_seconds = length, read_seconds

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        time.sleep(self.read_seconds)
        x = np.full((4, NUM_FEATURES), index, "float32")
        return x, x[:, :1]


class Beginning(keras.callbacks.Callback):
    """Says once that training has begun."""

    has_begun = False

    def on_train_batch_begin(self, batch, logs=None):
        """Keras calls this."""
        if not self.has_begun:
            self.has_begun = True
            say("training", batch)

    def on_train_batch_end(self, batch, logs=None):
        """Has Keras call the callbacks by itself.

        Without any that waits for logs, it leaves that to a pool of threads on JAX, and Ctrl-C in
        `Future.done()` keeps the lock of the future: the interpreter then never ends.
        """


def ours():
    """What runs on behalf of keras_echo, but for the test's own processes."""
    threads = [one.name for one in threading.enumerate() if one.name.startswith("keras_echo")]
    return threads + [one.name for one in multiprocessing.active_children()]


def what_is_left(within_seconds=10):
    """What still runs of keras_echo, and the files it has left open or unfinished."""
    deadline = time.monotonic() + within_seconds
    while ours() and time.monotonic() < deadline:
        time.sleep(0.02)
    return ours()


def unfinished(directory):
    """Files and directories that were to be temporary."""
    names = (".window-", ".tmp", ".json")
    return [
        str(path) for path in Path(directory).rglob("*") if any(name in path.name for name in names)
    ]


def interrupted(directory, num_times=1, **options):
    """Is interrupted by Ctrl-C in fit() and goes on, so many times."""
    log_dir = Path(directory, "logs")
    processes = options.pop("processes", False)
    is_plain = options.pop("plain", False)
    for number in range(num_times):
        if is_plain:
            try:
                tiny_model().fit(
                    Numbered(40, 0.002), epochs=100_000, callbacks=[Beginning()], verbose=0
                )
            except KeyboardInterrupt:
                say("interrupted", [number, 0, what_is_left(), []])
            continue
        dataset = keras_echo.EchoingPyDataset(
            Numbered(40, 0.002, workers=2, use_multiprocessing=processes), **options
        )
        callback = keras_echo.DataEchoCallback(dataset, log_dir, profile_freq=40, verbose=0)
        try:
            tiny_model().fit(dataset, epochs=100_000, callbacks=[Beginning(), callback], verbose=0)
        except KeyboardInterrupt:
            began = time.monotonic()
            del callback
            dataset.close()
            say(
                "interrupted",
                [number, time.monotonic() - began, what_is_left(), unfinished(log_dir)],
            )
    say("through", None)


def main():
    """Runs a scenario."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
    _, name, directory, options = sys.argv
    globals()[name](directory, **json.loads(options))


if __name__ == "__main__":
    main()
