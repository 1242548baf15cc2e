"""Counts and times of reads and waits, for users and profilers: the only clock of the data path."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Mark = Callable[[], AbstractContextManager[Any]]

_RECENT_READS = 1024
_RECENT_STEPS = 15


@dataclass(frozen=True)
class SkippedRead:
    """A read that failed and was skipped.

    Attributes:
        index: By which number the source knows the batch: its index, or its place in the pass.
        error: What was raised: the type and the text.
    """

    index: int
    error: str


@dataclass(frozen=True)
class EchoStats:
    """Counts and times of an `EchoingPyDataset`.

    Attributes:
        steps: Batches served to training.
        fresh_batches: Source batches among them that were used at least once; with
            `echo="example"`, the examples that were used at least once, in batches.
        passes: Complete passes over the source.
        skipped_reads: Reads that failed and were skipped (`on_error="skip"`), up to the batch that
            was served last.
        reads: Reads done, those of batches that still wait for their use included.
        read_seconds: Seconds that the readers were busy, summed over all of them.
        wait_seconds: Seconds that whoever asks waited for a batch: training, but on TensorFlow and
            with `as_tf_dataset()` a thread of `tf.data` that is ahead of it.
        echo_factor: The echoing factor now.
        extra_uses: Batches among the steps that were served while no fresh one was there.
        held_seconds: Seconds in which readers had nothing to do, since what they had read was not
            taken: the mean over the readers. `DataEchoCallback` has those left out in which nobody
            trains, such as a validation.
        compute_seconds: Of `read_seconds`, those in which a processor worked on the reads; the
            others were spent waiting, for storage, for a processor or for the interpreter's lock.
        batch_bytes: Bytes of a fresh batch, the mean.
        num_readers: How many threads or processes read.
        cache_hits: Reads among `reads` that the cache served.
        cached_bytes: What the cache holds: bytes of arrays in memory, and of files.
        retried_reads: Reads that failed and were tried again (`keras_echo.Retry`), once for each
            time.
        skipped: The last 100 of the `skipped_reads`.
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
    held_seconds: float = 0.0
    compute_seconds: float = 0.0
    batch_bytes: float = 0.0
    num_readers: int = 1
    cache_hits: int = 0
    cached_bytes: int = 0
    retried_reads: int = 0
    skipped: tuple[SkippedRead, ...] = ()


class Read(NamedTuple):
    """A read that is done.

    Attributes:
        start: When it began, by `time.perf_counter`.
        seconds: How long it took.
        held_seconds: `Meter.held_seconds` when it ended.
        paused_seconds: The same of those in which nobody trained.
        is_awaited: Whether the consumer waited for a batch when it ended.
        is_first: Whether it was the first of its reader, which may have had to start a process or
            to open a connection.
        compute_seconds: For how long a processor worked on it.
    """

    start: float
    seconds: float
    held_seconds: float = 0.0
    paused_seconds: float = 0.0
    is_awaited: bool = False
    is_first: bool = False
    compute_seconds: float = 0.0

    @property
    def end(self) -> float:
        """When it ended."""
        return self.start + self.seconds


class Effort:
    """What a read took that its own thread doesn't know.

    Attributes:
        compute_seconds: For how long a processor worked on it in another process.
        is_dropped: Whether nobody waits for it any more: then it doesn't count.
    """

    compute_seconds = 0.0
    is_dropped = False


class _Rest:
    """How long readers had nothing to do, while somebody trained and while nobody did.

    Without a lock: a prefetcher tells of it under its own, which a finalizer may take on any thread
    and at any time, and a second one could then be waited for in a circle. `held` is called by one
    thread at a time, `pause` and `resume` by the one that trains, and each writes one tuple.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held = (0.0, clock(), 1.0)  # seconds until then, and the share that rests since
        self._paused: tuple[float, float | None] = (0.0, None)  # before, and where it began

    def held(self, share: float) -> None:
        """From now on, this share of the readers has nothing to do."""
        now = self._clock()
        self._held = (self._total(now), now, share)

    def pause(self) -> None:
        """From now on, nobody trains."""
        seconds, began = self._paused
        if began is None:
            self._paused = (seconds, self._total(self._clock()))

    def resume(self) -> None:
        """Somebody trains again."""
        seconds, began = self._paused
        if began is not None:
            self._paused = (seconds + self._total(self._clock()) - began, None)

    def seconds(self) -> tuple[float, float]:
        """Those in which somebody trained, and the others."""
        total = self._total(self._clock())
        seconds, began = self._paused
        if began is not None:
            seconds += total - began
        return total - seconds, seconds

    def _total(self, now: float) -> float:
        seconds, since, share = self._held
        return seconds + share * max(0.0, now - since)


class Meter:
    """Sums the reads and waits of a dataset over its whole life, on whatever thread they happen.

    It is what a `Prefetcher` reports to; see `keras_echo.reading.watch.Watch`.

    Attributes:
        num_reads: Reads that are done, failed ones included.
        read_seconds: Seconds that the readers were busy, summed over all of them.
        compute_seconds: Of them, those in which a processor worked on the reads.
        wait_seconds: Seconds that the consumer waited for a batch.
        num_skipped: Reads that failed and were skipped; those that were skipped again count again.
        num_retried: Times that a read failed and was to be tried again.
        num_hits: Reads among `num_reads` that the cache served.
        num_missed: Times that a fresh batch was asked for and none lay ready.
        mark_read: Makes the context in which a read is done, for a profiler to see it.
        mark_wait: The same for a wait.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        thread_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._clock = clock
        self._thread_clock = thread_clock
        self._lock = threading.Lock()
        self.num_reads = 0
        self.read_seconds = 0.0
        self.compute_seconds = 0.0
        self.wait_seconds = 0.0
        self.num_skipped = 0
        self.num_retried = 0
        self.num_missed = 0
        self._num_fresh = self._num_bytes = 0
        self.num_hits = 0
        self.mark_read: Mark = nullcontext
        self.mark_wait: Mark = nullcontext
        self._recent_reads: deque[Read] = deque(maxlen=_RECENT_READS)
        self._reader = threading.local()
        self._is_awaited = False
        self._rest = _Rest(clock)
        self._recent_steps: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._wait_ended: float | None = None
        self._waiting_since: float | None = None

    @contextmanager
    def reading(self) -> Iterator[Effort]:
        """Measures one read, on the thread that does it or waits for the process that does."""
        effort = Effort()
        with self.mark_read():
            started, computed = self._clock(), self._thread_clock()
            try:
                yield effort
            finally:
                ended = self._clock()
                compute_seconds = self._thread_clock() - computed + effort.compute_seconds
                is_first, self._reader.has_read = not hasattr(self._reader, "has_read"), True
                if not effort.is_dropped:
                    with self._lock:
                        self._add_read(started, ended, is_first, compute_seconds)

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

    def held(self, share: float) -> None:
        """From now on, this share of the readers has nothing to do; see `held_seconds`."""
        self._rest.held(share)

    def pause(self) -> None:
        """From now on, nobody trains: readers that rest have a reason."""
        self._rest.pause()

    def resume(self) -> None:
        """Somebody trains again."""
        self._rest.resume()

    def missed(self) -> None:
        """The consumer asked for a fresh batch, and none lay ready."""
        self._is_awaited = True
        self.num_missed += 1

    def took(self) -> None:
        """The consumer has a fresh batch."""
        self._is_awaited = False

    def retried(self) -> None:
        """Counts a read that failed and is to be tried again."""
        self.num_retried += 1

    @property
    def held_seconds(self) -> float:
        """Seconds in which readers had nothing to do, the mean over the readers."""
        return self._rest.seconds()[0]

    def waiting_seconds(self) -> float:
        """How long the consumer has been waiting by now; 0 if it isn't."""
        since = self._waiting_since
        return 0.0 if since is None else self._clock() - since

    def step_seconds(self) -> float:
        """What the consumer takes from one batch to the next, without waits; NaN if unknown."""
        with self._lock:
            return statistics.median(self._recent_steps) if self._recent_steps else math.nan

    def recent_reads(self) -> list[Read]:
        """The last reads that are done, by their end."""
        with self._lock:
            return list(self._recent_reads)

    def fresh(self, num_bytes: int) -> None:
        """Counts a fresh batch of so many bytes."""
        with self._lock:
            self._num_fresh += 1
            self._num_bytes += num_bytes

    @property
    def batch_bytes(self) -> float:
        """Bytes of a fresh batch, the mean; 0 before the first one."""
        return self._num_bytes / self._num_fresh if self._num_fresh else 0.0

    def skipped(self) -> None:
        """Counts a read that failed and was skipped."""
        with self._lock:
            self.num_skipped += 1

    def hit(self) -> None:
        """Counts a read that the cache served."""
        with self._lock:
            self.num_hits += 1

    def _add_read(
        self, started: float, ended: float, is_first: bool, compute_seconds: float
    ) -> None:
        seconds = ended - started
        held_seconds, paused_seconds = self._rest.seconds()
        self.num_reads += 1
        self.read_seconds += seconds
        self.compute_seconds += compute_seconds
        self._recent_reads.append(
            Read(
                started,
                seconds,
                held_seconds,
                paused_seconds,
                self._is_awaited,
                is_first,
                compute_seconds,
            )
        )

    def _add_wait(self, started: float, ended: float) -> None:
        self.wait_seconds += ended - started
        if self._wait_ended is not None:
            self._recent_steps.append(started - self._wait_ended)
        self._wait_ended = ended
