"""What the processes of the fault tests do: `python scenarios.py NAME DIRECTORY OPTIONS`.

Each function is a scenario. It says where it stands in lines of a word and JSON, and ends by
itself; see `FaultProcess`.
"""

import faulthandler
import gc
import json
import multiprocessing
import signal
import sys
import threading
import time
from pathlib import Path

import keras
from recorder import Numbered

import keras_echo

_ENDS_SECONDS = 10.0  # after which nothing may run any more


def say(word, **values):
    """Tells the test."""
    sys.stdout.write(f"{word} {json.dumps(values)}\n")
    sys.stdout.flush()


class Slow(Numbered):
    """Takes a time to read a batch; from batch `stalls_at` on, for ever."""

    def __init__(self, length, read_seconds, stalls_at=None, **kwargs):
        super().__init__(length, **kwargs)
        self.read_seconds, self.stalls_at = read_seconds, stalls_at

    def __getitem__(self, index):
        is_stalled = self.stalls_at is not None and index >= self.stalls_at
        time.sleep(1000 if is_stalled else self.read_seconds)
        return super().__getitem__(index)


class Begins(keras.callbacks.Callback):
    """Says once that training has begun."""

    has_begun = False

    def on_train_batch_begin(self, batch, logs=None):
        """Keras calls this."""
        if not self.has_begun:
            self.has_begun = True
            say("training")

    def on_train_batch_end(self, batch, logs=None):
        """Has Keras call the callbacks by itself.

        Where none wants the logs, it leaves that to a pool of threads, and Ctrl-C in
        `Future.done()` of the standard library keeps a lock: the interpreter then never ends.
        """


def fit(dataset, directory):
    """Trains for ever, with windows one after the other."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callback = keras_echo.DataEchoCallback(
        dataset, Path(directory, "logs"), profile_freq=40, verbose=0
    )
    model.fit(dataset, epochs=10**6, callbacks=[Begins(), callback], verbose=0)


def running():
    """What of keras_echo runs after some seconds at most: threads, and all processes."""
    deadline = time.monotonic() + _ENDS_SECONDS
    while time.monotonic() < deadline:
        found = [one.name for one in threading.enumerate() if one.name.startswith("keras_echo")]
        found += [one.name for one in multiprocessing.active_children()]
        if not found:
            break
        time.sleep(0.02)
    return found


def is_interruption(error):
    """Whether it is KeyboardInterrupt, or what TensorFlow's C code at times makes of that."""
    if isinstance(error, KeyboardInterrupt) or keras.backend.backend() != "tensorflow":
        return isinstance(error, KeyboardInterrupt)
    is_said = isinstance(error, RuntimeError) and "KeyboardInterrupt" in str(error)
    # Where it came while a tensor was made of something.
    is_of_tensor = isinstance(error, TypeError) and "Failed to convert elements" in str(error)
    return is_said or is_of_tensor or isinstance(error, SystemError)


def interrupted(directory, num_times, **options):
    """Is interrupted by Ctrl-C in fit(), and begins again, so many times."""
    for number in range(num_times):
        dataset = keras_echo.EchoingPyDataset(Slow(40, 0.002, workers=2), **options)
        try:
            fit(dataset, directory)
        except BaseException as error:
            if not is_interruption(error):
                raise
            say("heard")
            # Whoever holds the exception, as a notebook does, holds all that was open in fit().
            found = running()
        gc.collect()
        say(
            "over",
            number=number,
            running=found,
            unfinished=[str(path) for path in Path(directory).glob("logs/.window-*")],
        )
    say("through")


def uncaught(directory):
    """Is ended by Ctrl-C."""
    fit(keras_echo.EchoingPyDataset(Slow(40, 0.002, workers=2)), directory)


def stalled(directory):
    """Waits for a batch that never comes."""
    dataset = keras_echo.EchoingPyDataset(Slow(40, 0.002, stalls_at=30, workers=2), shuffle=False)
    try:
        fit(dataset, directory)
    except BaseException as error:
        if not is_interruption(error):
            raise
        say("heard")


def main():
    """Runs a scenario."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
    _, name, directory, options = sys.argv
    globals()[name](directory, **json.loads(options))


if __name__ == "__main__":
    main()
