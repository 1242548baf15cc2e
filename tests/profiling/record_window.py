"""Trains on a source with known read time, records one window, prints what is true.

Run in a process of its own, with KERAS_BACKEND set: `record.py LOGDIR '{"read": 0.02, ...}'`.
"""

import contextlib
import json
import os
import queue
import sys
import threading
import time

import keras
import numpy as np

from keras_echo.profiling import names
from keras_echo.profiling.recording.tracer import Tracer

WARM_UP = 12


class Echoed(keras.utils.PyDataset):
    """A small stand-in for the dataset: worker threads read, every batch is used `echo` times."""

    def __init__(self, steps, read, workers, echo, tracer):
        super().__init__()
        self.steps, self.read, self.echo, self.tracer = steps, read, echo, tracer
        self.workers_count = workers
        self.batch = np.ones((64, 256), "float32"), np.ones((64, 1), "float32")
        self.queue = queue.Queue(maxsize=2)
        self.done = threading.Event()
        self.lock = threading.Lock()
        self.left = 0
        self.current = None
        self.reads = []
        if read:
            for _ in range(workers):
                threading.Thread(target=self._work, daemon=True).start()

    def _work(self):
        while not self.done.is_set():
            start = time.perf_counter()
            with self.tracer.annotate(names.READ, readers=self.workers_count):
                time.sleep(self.read)
                batch = tuple(part.copy() for part in self.batch)
            self.reads.append((start, time.perf_counter() - start))
            while not self.done.is_set():
                try:
                    self.queue.put(batch, timeout=0.1)
                    break
                except queue.Full:
                    pass

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        with self.lock, self.tracer.annotate(names.WAIT):
            if not self.read:
                return self.batch
            if self.left <= 0:
                self.current = self.queue.get()
                self.left += self.echo
            self.left -= 1
            return self.current


class Window(keras.callbacks.Callback):
    def __init__(self, tracer, logdir, steps, reads=None, readers=None):
        super().__init__()
        self.tracer, self.logdir, self.steps = tracer, logdir, steps
        self.reads, self.readers = reads, readers
        self.path = None
        self.step = contextlib.ExitStack()

    def on_train_batch_end(self, batch, logs=None):
        if batch == WARM_UP:
            self.tracer.synchronize(logs)
            self.tracer.start(self.logdir)
        last = WARM_UP + self.steps
        if WARM_UP <= batch < last:
            self.step.close()
            self.step.enter_context(self.tracer.step(batch))
        elif batch == last:
            self.tracer.synchronize(logs)
            self.step.close()
            reads = self.reads[-2 * self.readers - self.steps :] if self.reads is not None else ()
            self.tracer.stop()
            self.path = self.tracer.write(reads, readers=self.readers)


class Pause(keras.callbacks.Callback):
    """Makes up the most of a step, so that its time is known on a busy machine too."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def on_train_batch_begin(self, batch, logs=None):
        if self.seconds:
            time.sleep(self.seconds)


class Clock(keras.callbacks.Callback):
    """Times blocks of ten steps, each closed by the device's answer."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        if batch >= WARM_UP and (batch - WARM_UP) % 10 == 0:
            float(np.asarray(next(iter(logs.values()))))
            self.ends.append(time.perf_counter())

    def blocks(self):
        return list(np.diff(self.ends) / 10)


def model_of(width, layers, jit_compile, steps_per_execution):
    model = keras.Sequential(
        [keras.layers.Dense(width, activation="relu") for _ in range(layers)]
        + [keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse", jit_compile=jit_compile, steps_per_execution=steps_per_execution)
    return model


def main(logdir, options):
    given = {
        "ratio": 2.0, "workers": 1, "echo": 1, "verbose": 0, "steps": 20, "measured": False,
        "width": 1024, "layers": 3, "spe": 1, "pause": 0.0,
    } | options  # fmt: skip
    jit = False if keras.backend.backend() == "tensorflow" else "auto"
    model = model_of(given["width"], given["layers"], jit, given["spe"])
    tracer = Tracer()
    pause = Pause(given["pause"])

    def in_memory():
        clock = Clock()
        data = Echoed(WARM_UP + 51, 0, 1, 1, tracer)
        model.fit(data, verbose=given["verbose"], callbacks=[pause, clock])
        return clock.blocks()

    spans = in_memory() if given["spe"] == 1 else [0.01]
    read = given["ratio"] * given["workers"] * float(np.median(spans))
    steps = (WARM_UP + given["steps"] + 2) * given["spe"]
    data = Echoed(steps, read, given["workers"], given["echo"], tracer)
    measured = (data.reads, given["workers"]) if given["measured"] else (None, None)
    window = Window(tracer, logdir, given["steps"], *measured)
    if given["spe"] > 1:
        window.on_train_batch_end = _every(window.on_train_batch_end, given["spe"])
    model.fit(data, verbose=given["verbose"], callbacks=[pause, window])
    data.done.set()
    if given["spe"] == 1:
        spans += in_memory()
    known = [seconds for _, seconds in data.reads]
    step = float(np.median(spans))
    true_read = sum(known) / len(known)
    sys.stdout.write(
        json.dumps(
            {
                "path": str(window.path),
                "step": step,
                "steps": spans,
                "read": true_read,
                "ratio": true_read / given["workers"] / step,
            }
        )
    )


def _every(hook, calls):
    def counted(batch, logs=None):
        hook(batch // calls, logs)

    return counted


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
    sys.stdout.flush()
    # TensorFlow's threads may hang in the interpreter's shutdown.
    os._exit(0)
