"""How much of the time somebody holds the interpreter's lock.

A thread sleeps for a few milliseconds, again and again, and sees whether it has to wait for the
lock when it wakes up. Threads that compute in NumPy or wait for a network let go of it; threads
that run Python code don't, and one of them can run at a time.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Self

try:
    from resource import RUSAGE_THREAD, getrusage
except ImportError:  # Linux alone counts what one thread does
    getrusage = None  # type: ignore[assignment]

_SECONDS = (0.002, 0.012)  # of a sleep; drawn, so as not to keep time with what is sampled
_LATE_SECONDS = 0.001  # a lock that is held is waited for up to 5 ms (sys.getswitchinterval)


class LockSampler:
    """Samples as long as it is open.

    Examples:
        >>> with LockSampler() as lock:
        ...     train()
        >>> lock.fraction
    """

    def __init__(self) -> None:
        self._is_open = False
        self._num_samples = self._num_held = 0
        self._random = random.Random()  # of its own: the global one may be the user's, and seeded

    def __enter__(self) -> Self:
        self._is_open = True
        threading.Thread(target=self._sample, name="keras_echo-lock", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False

    @property
    def fraction(self) -> float:
        """Share of the samples for which the lock was held; NaN if there are none."""
        return self._num_held / self._num_samples if self._num_samples else float("nan")

    def _sample(self) -> None:
        while self._is_open:
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
