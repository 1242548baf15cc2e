"""Sources that keep a training waiting, each for a reason of its own."""

from __future__ import annotations

import itertools
import re
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from emulated import SharedBandwidth, SleepingSource, batch_of

import keras_echo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HUGE = 10**9  # batches: they fit in no memory
PASS = 100  # batches of a pass that fits


class ComputingSource(SleepingSource):
    """Computes for `seconds` of a processor's time, in NumPy or in Python."""

    in_numpy = True

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        compute(self.seconds, in_numpy=self.in_numpy)
        return batch_of(index)


class PythonSource(ComputingSource):
    """Holds the interpreter's lock meanwhile."""

    in_numpy = False


def compute(seconds: float, *, in_numpy: bool) -> None:
    """Keeps a processor at work for so long."""
    numbers = np.random.default_rng(0).random(20_000)
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        if in_numpy:
            np.sort(numbers)
        else:
            sum(range(1000))


def rare_bursts(index: int) -> float:
    """49 short reads and a long one."""
    return 0.8 if index % 50 == 49 else 0.004


def generator(augments: bool = True) -> Callable[[], Iterator[Any]]:
    """Waits for each batch, then augments it."""

    def batches() -> Iterator[Any]:
        for index in itertools.count():
            time.sleep(0.025)
            batch = batch_of(index)
            yield augmented(batch) if augments else batch

    return batches


def augmented(batch: Any) -> Any:
    """What an augmentation of 15 ms returns."""
    compute(0.015, in_numpy=True)
    return batch


SOURCES: dict[str, Callable[[], Any]] = {
    "waiting, 1": lambda: SleepingSource(0.08, HUGE),
    "waiting, 16": lambda: SleepingSource(0.64, HUGE),
    "shared": lambda: SleepingSource(SharedBandwidth(0.06), PASS),
    "NumPy": lambda: ComputingSource(0.036, HUGE),
    "Python": lambda: PythonSource(0.09, HUGE),
    "bursts": lambda: SleepingSource(rare_bursts, HUGE),
    "augmentation": generator,
    "fast": lambda: SleepingSource(0.005, HUGE),
}


def applied(
    name: str, remedy: keras_echo.Remedy, options: dict[str, Any]
) -> tuple[Callable[[], Any], dict[str, Any], int]:
    """The source and its options with a remedy, and the steps until it can show."""
    number = int(re.match(r"\d*", remedy.change)[0] or 0)
    match remedy.kind:
        case "readers":
            return SOURCES[name], options | {"workers": number}, 0
        case "processes":
            more = {"workers": number, "use_multiprocessing": True}
            return SOURCES[name], options | more, 120  # they start meanwhile
        case "queue":
            return SOURCES[name], options | {"max_queue_size": number}, 0
        case "cache":
            cache = keras_echo.Cache(memory_bytes=2**30)
            return SOURCES[name], options | {"cache": cache}, PASS
        case "augment":
            return lambda: generator(augments=False), options | {"augment": augmented}, 0
    raise ValueError(remedy)
