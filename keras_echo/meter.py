"""How long reading and waiting took: the only clock of the data path."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


class Meter:
    """Sums the reads and waits of a dataset over its whole life, on whatever thread they happen.

    Attributes:
        num_reads: Reads that are done, failed ones included.
        read_seconds: Seconds that the readers were busy, summed over all of them.
        wait_seconds: Seconds that the consumer waited for a batch.
        num_skipped: Reads that failed and were skipped.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.num_reads = 0
        self.read_seconds = 0.0
        self.wait_seconds = 0.0
        self.num_skipped = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Measures one read."""
        with self._adding_to("read_seconds"):
            try:
                yield
            finally:
                with self._lock:
                    self.num_reads += 1

    def waiting(self) -> AbstractContextManager[None]:
        """Measures one wait for a batch."""
        return self._adding_to("wait_seconds")

    def skipped(self) -> None:
        """Counts a read that failed and was skipped."""
        with self._lock:
            self.num_skipped += 1

    @contextmanager
    def _adding_to(self, total: str) -> Iterator[None]:
        started = self._clock()
        try:
            yield
        finally:
            seconds = self._clock() - started
            with self._lock:
                setattr(self, total, getattr(self, total) + seconds)
