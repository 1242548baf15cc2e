"""How much of the time somebody holds the interpreter's lock.

A thread sleeps for a few milliseconds, again and again, and sees whether it has to wait for the
lock when it wakes up. Threads that compute in NumPy or wait for a network let go of it; threads
that run Python code don't, and one of them can run at a time.
"""

from __future__ import annotations

import contextlib
import math
import random
import threading
import time

try:
    from resource import RUSAGE_THREAD, getrusage
except ImportError:  # Linux alone counts what one thread does
    getrusage = None  # type: ignore[assignment]

_FEWEST_SAMPLES = 5
_SECONDS = (0.001, 0.005)  # of a sleep; drawn, so as not to keep time with what is sampled
_MOST_SECONDS = 5.0  # for which to sample: Ctrl-C may leave a window open, and `stop` uncalled
_LATE_SECONDS = 0.001  # a lock that is held is waited for up to 5 ms (sys.getswitchinterval)


class LockSampler:
    """Samples from `start` to `stop`, for five seconds at most."""

    def __init__(self) -> None:
        self._is_sampling = False
        self._num_samples = self._num_held = 0
        self._random = random.Random()  # of its own: the global one may be the user's, and seeded

    def start(self) -> None:
        """Begins to sample, on a thread of its own; without one, there are no samples."""
        self._is_sampling = True
        with contextlib.suppress(RuntimeError):  # no more threads are to be had
            threading.Thread(target=self._sample, name="keras_echo-lock", daemon=True).start()

    def stop(self) -> None:
        """Ends that; the thread ends a few milliseconds later."""
        self._is_sampling = False

    @property
    def fraction(self) -> float:
        """Share of the samples for which the lock was held; NaN if there are too few."""
        if self._num_samples < _FEWEST_SAMPLES:
            return math.nan
        return self._num_held / self._num_samples

    def _sample(self) -> None:
        began = time.perf_counter()
        while self._is_sampling and time.perf_counter() - began < _MOST_SECONDS:
            is_held = _woke_up_late(self._random.uniform(*_SECONDS))
            self._num_samples += 1
            self._num_held += is_held


def _woke_up_late(seconds: float) -> bool:
    """Sleeps; returns whether the lock was held then."""
    if getrusage is None:
        began = time.perf_counter()
        time.sleep(seconds)
        return time.perf_counter() - began - seconds > _LATE_SECONDS
    # To sleep is to give up the processor once, and to wait for the lock is to do so once more:
    # unlike the time that this takes, it is the same on a machine that has too much to do.
    before = getrusage(RUSAGE_THREAD).ru_nvcsw
    time.sleep(seconds)
    return getrusage(RUSAGE_THREAD).ru_nvcsw - before > 1
