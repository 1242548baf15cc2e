"""`Probe`: a dataset's side of a profiled window."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from keras_echo.factor import EchoFactor
    from keras_echo.meter import Meter
    from keras_echo.stats import EchoStats

    Mark = Callable[[], AbstractContextManager[Any]]
    Read = tuple[float, float]


class Probe:
    """Lets a profiler mark what a dataset does, and asks it for what no profiler sees.

    Args:
        factor: The dataset's echoing factor.
        meter: Its meter.
        num_readers: How many reads can run at the same time.
        fill: Waits until so many fresh batches lie ready, at most so many seconds; returns
            whether they do.
        stats: Returns the dataset's counts so far.
        num_served: Returns how often it was asked for a batch, peeks included.
    """

    def __init__(
        self,
        factor: EchoFactor,
        meter: Meter,
        *,
        num_readers: int,
        fill: Callable[[int, float], bool],
        stats: Callable[[], EchoStats],
        num_served: Callable[[], int],
    ) -> None:
        self.factor = factor
        self._meter = meter
        self.num_readers = num_readers
        self.fill = fill
        self.stats = stats
        self.num_served = num_served

    @contextmanager
    def marking(self, read: Mark, wait: Mark) -> Iterator[None]:
        """Has every read and every wait for a batch done inside of a context of its own.

        Args:
            read: Makes the context of a read; called on the thread that reads or, where a process
                does, on the one that waits for it.
            wait: Makes the context of a wait; called on the thread that asks for a batch.
        """
        self._meter.mark_read, self._meter.mark_wait = read, wait
        try:
            yield
        finally:
            self._meter.mark_read = self._meter.mark_wait = nullcontext

    def read_seconds(self) -> float:
        """Seconds from one fresh batch to the next, all readers at work, as of late."""
        reads = self._meter.recent_reads()[-2 * self.num_readers :]
        return sum(seconds for _, seconds in reads) / max(1, len(reads)) / self.num_readers

    def reads_since(self, clock_seconds: float, *, num_before: int = 2) -> list[Read]:
        """Reads that ended since, and some that ended before.

        Args:
            clock_seconds: A time by `time.perf_counter`.
            num_before: How many times as many before as can be in flight.

        Returns:
            Pairs of a start by the same clock and seconds, by their end.
        """
        reads = self._meter.recent_reads()
        first = sum(start + seconds < clock_seconds for start, seconds in reads)
        return reads[max(0, first - num_before * self.num_readers) :]
