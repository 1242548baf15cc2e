"""Ends in the midst of a window: `LOGDIR HOW`, by an exception, by Ctrl-C or by `sys.exit`."""

import os
import signal
import sys

import keras
import numpy as np

import keras_echo


def fail():
    raise RuntimeError("training's own error")


HOW = {
    "error": fail,
    "interrupt": lambda: os.kill(os.getpid(), signal.SIGINT),
    "exit": lambda: sys.exit(3),
}


class Ends(keras.callbacks.Callback):
    def __init__(self, echo, how):
        super().__init__()
        self._echo, self._how = echo, how

    def on_train_batch_begin(self, batch, logs=None):
        if self._echo._tracer.active:
            HOW[self._how]()


def main(logdir, how):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((640, 2), "float32")
    dataset = keras_echo.EchoingPyDataset((x, x[:, :1]), batch_size=2, seed=0)
    echo = keras_echo.DataEchoCallback(dataset, logdir, warmup_steps=4, verbose=0)
    model.fit(dataset, epochs=2, verbose=0, callbacks=[echo, Ends(echo, how)])


if __name__ == "__main__":
    main(*sys.argv[1:])
