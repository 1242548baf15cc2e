"""How long reading and waiting took: the only clock of the data path."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


_RECENT_READS = 1024


class Meter:
    """Sums the reads and waits of a dataset over its whole life, on whatever thread they happen.

    Attributes:
        num_reads: Reads that are done, failed ones included.
        read_seconds: Seconds that the readers were busy, summed over all of them.
        wait_seconds: Seconds that the consumer waited for a batch.
        num_skipped: Reads that failed and were skipped.
        mark_read: Makes the context in which a read is done, for a profiler to see it.
        mark_wait: The same for a wait.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.num_reads = 0
        self.read_seconds = 0.0
        self.wait_seconds = 0.0
        self.num_skipped = 0
        self.mark_read: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.mark_wait: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._recent_reads: deque[tuple[float, float]] = deque(maxlen=_RECENT_READS)

    def reading(self) -> AbstractContextManager[None]:
        """Measures one read."""
        return self._timed(self.mark_read, self._add_read)

    def waiting(self) -> AbstractContextManager[None]:
        """Measures one wait for a batch."""
        return self._timed(self.mark_wait, self._add_wait)

    def recent_reads(self) -> list[tuple[float, float]]:
        """The last reads that are done: start by the meter's clock, and seconds."""
        with self._lock:
            return list(self._recent_reads)

    def skipped(self) -> None:
        """Counts a read that failed and was skipped."""
        with self._lock:
            self.num_skipped += 1

    @contextmanager
    def _timed(
        self,
        mark: Callable[[], AbstractContextManager[Any]],
        add: Callable[[float, float], None],
    ) -> Iterator[None]:
        with mark():
            started = self._clock()
            try:
                yield
            finally:
                seconds = self._clock() - started
                with self._lock:
                    add(started, seconds)

    def _add_read(self, started: float, seconds: float) -> None:
        self.num_reads += 1
        self.read_seconds += seconds
        self._recent_reads.append((started, seconds))

    def _add_wait(self, _: float, seconds: float) -> None:
        self.wait_seconds += seconds
