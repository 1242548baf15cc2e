"""Trains with a log_dir on a disk that breaks, in a process of its own: `LOGDIR FAULT EPOCH`.

Prints what training said of it, as JSON.
"""

import json
import os
import resource
import shutil
import sys
import warnings
from pathlib import Path

import keras
import numpy as np

import keras_echo

FAULTS = {
    "filled": lambda logdir: (logdir / "all").write_bytes(b"x" * shutil.disk_usage(logdir).free),
    "removed": lambda logdir: shutil.rmtree(logdir, ignore_errors=True),
    # The disk is full for all files: none may grow. Python ignores the signal that comes with it.
    "full": lambda logdir: resource.setrlimit(
        resource.RLIMIT_FSIZE, (1, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    ),
    "a file": lambda logdir: (shutil.rmtree(logdir, ignore_errors=True), logdir.write_text("")),
}


class Breaks(keras.callbacks.Callback):
    def __init__(self, logdir, fault, epoch):
        super().__init__()
        self._logdir, self._fault, self._epoch = logdir, fault, epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self._epoch:
            FAULTS[self._fault](self._logdir)


def main(logdir, fault, epoch):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((160, 2), "float32")
    with (
        warnings.catch_warnings(record=True) as caught,
        keras_echo.EchoingPyDataset((x, x[:, :1]), batch_size=2, seed=0) as dataset,
    ):
        warnings.simplefilter("always", RuntimeWarning)
        callback = keras_echo.DataEchoCallback(
            dataset, logdir, warmup_steps=4, profile_steps=5, profile_freq=20, verbose=0
        )
        history = model.fit(
            dataset, epochs=4, verbose=0, callbacks=[Breaks(logdir, fault, epoch), callback]
        )
    hidden = logdir.rglob(".*")
    return {
        "epochs": len(history.epoch),
        "warnings": [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)],
        "hidden": [str(path) for path in hidden],
        "curves": [path.stat().st_size for path in logdir.glob("events.*")],
        "origins": [decision.breakdown.origin for decision in callback.decisions],
    }


if __name__ == "__main__":
    told = main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    os.write(1, json.dumps(told).encode())  # a pipe, which is no file that may not grow
    if keras.backend.backend() == "tensorflow":
        os._exit(0)  # TensorFlow 2.21 at times hangs in the interpreter's shutdown
