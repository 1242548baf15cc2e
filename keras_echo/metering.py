"""Counts and times of reads and waits, for users and profilers: the only clock of the data path."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from keras_echo.factor import EchoFactor

    Mark = Callable[[], AbstractContextManager[Any]]
    Read = tuple[float, float]

_RECENT_READS = 1024
_RECENT_STEPS = 15


@dataclass(frozen=True)
class EchoStats:
    """Counts and times of an `EchoingPyDataset`.

    Attributes:
        steps: Batches served to training.
        fresh_batches: Source batches among them that were used at least once; with
            `echo="example"`, the examples that were used at least once, in batches.
        passes: Complete passes over the source.
        skipped_reads: Reads that failed and were skipped (`on_error="skip"`).
        reads: Reads done, those of batches that still wait for their use included.
        read_seconds: Seconds that the readers were busy, summed over all of them.
        wait_seconds: Seconds that training waited in `__getitem__`.
        echo_factor: The echoing factor now.
        extra_uses: Batches among the steps that were served while no fresh one was there.
    """

    steps: int = 0
    fresh_batches: int = 0
    passes: int = 0
    skipped_reads: int = 0
    reads: int = 0
    read_seconds: float = 0.0
    wait_seconds: float = 0.0
    echo_factor: float = 1.0
    extra_uses: int = 0


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
        self.mark_read: Mark = nullcontext
        self.mark_wait: Mark = nullcontext
        self._recent_reads: deque[tuple[float, float]] = deque(maxlen=_RECENT_READS)
        self._recent_steps: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._wait_ended: float | None = None
        self._waiting_since: float | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Measures one read."""
        with self.mark_read():
            started = self._clock()
            try:
                yield
            finally:
                seconds = self._clock() - started
                with self._lock:
                    self._add_read(started, seconds)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Measures one wait for a batch."""
        with self.mark_wait():
            self._waiting_since = started = self._clock()
            try:
                yield
            finally:
                ended = self._clock()
                self._waiting_since = None
                with self._lock:
                    self._add_wait(started, ended)

    def waiting_seconds(self) -> float:
        """How long the consumer has been waiting by now; 0 if it isn't."""
        since = self._waiting_since
        return 0.0 if since is None else self._clock() - since

    def step_seconds(self) -> float:
        """What the consumer takes from one batch to the next, without waits; NaN if unknown."""
        with self._lock:
            return statistics.median(self._recent_steps) if self._recent_steps else math.nan

    def recent_reads(self) -> list[tuple[float, float]]:
        """The last reads that are done: start by the meter's clock, and seconds."""
        with self._lock:
            return list(self._recent_reads)

    def skipped(self) -> None:
        """Counts a read that failed and was skipped."""
        with self._lock:
            self.num_skipped += 1

    def _add_read(self, started: float, seconds: float) -> None:
        self.num_reads += 1
        self.read_seconds += seconds
        self._recent_reads.append((started, seconds))

    def _add_wait(self, started: float, ended: float) -> None:
        self.wait_seconds += ended - started
        if self._wait_ended is not None:
            self._recent_steps.append(started - self._wait_ended)
        self._wait_ended = ended


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

    Attributes:
        sees_dataset: Whether there is a dataset to ask; see `without_dataset`.
    """

    sees_dataset = True

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

    @classmethod
    def without_dataset(cls, factor: EchoFactor) -> Probe:
        """What stands in where only the factor of another pipeline is known: all counts are 0."""
        probe = cls(
            factor,
            Meter(),
            num_readers=1,
            fill=lambda num_batches, timeout_seconds: False,
            stats=lambda: EchoStats(echo_factor=factor.value),
            num_served=lambda: 0,
        )
        probe.sees_dataset = False
        return probe

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
            num_before: How many reads before, as a multiple of the number of readers.

        Returns:
            Pairs of a start by the same clock and seconds, by their end.
        """
        reads = self._meter.recent_reads()
        first = sum(start + seconds < clock_seconds for start, seconds in reads)
        return reads[max(0, first - num_before * self.num_readers) :]
