"""What a profiler needs of a dataset: marks for its reads and waits, and what no profiler sees."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from keras_echo.machine import num_cores
from keras_echo.metering import EchoStats, Meter
from keras_echo.reading.reader_count import Fixed, ReaderCount, Search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from keras_echo.factor import EchoFactor
    from keras_echo.memory.batch import Batch
    from keras_echo.metering import Mark, Read
    from keras_echo.reading.reader_count import Trial
    from keras_echo.reading.stream import Position


@dataclass(frozen=True)
class Input:
    """How a source is read.

    Attributes:
        is_sequential: Whether batches can only be read one after the other. Then it may have some
            ready before they are asked for.
        uses_processes: Whether processes read, and not threads.
        queue_size: How many batches are read ahead.
        num_batches: Batches in a pass; None if nobody knows.
        can_be_cached: Whether a batch can be asked for by an index, and is the same each time.
    """

    is_sequential: bool
    uses_processes: bool = False
    queue_size: int = 10
    num_batches: int | None = None
    can_be_cached: bool = False


class Unseen(Protocol):
    """The fresh batches that no step has seen yet, and what the steps used."""

    num_ahead: int  # fresh batches that are to lie ready beside the next one

    def upcoming(self) -> dict[Position, Callable[[], Batch]]:
        """Those that lie ready, in order: by its position, what makes a copy of a batch."""

    def fill(self, num_batches: int, timeout_seconds: float) -> bool:
        """Waits until so many lie ready, at most so long; returns whether they do."""

    def steady(self) -> AbstractContextManager[None]:
        """Inside, each batch gets the uses that the factor says, whoever has to wait."""

    def number_of_use(self, step: int) -> int:
        """Which use of its batch a step of the stream got, from 1; 0: nobody knows."""


class Nothing:
    """Nothing lies ready, and nobody knows what was used; see `Unseen`."""

    num_ahead = 0

    def upcoming(self) -> dict[Position, Callable[[], Batch]]:
        """See `Unseen`."""
        return {}

    def fill(self, num_batches: int, timeout_seconds: float) -> bool:
        """See `Unseen`."""
        return False

    def steady(self) -> AbstractContextManager[None]:
        """See `Unseen`."""
        return nullcontext()

    def number_of_use(self, step: int) -> int:
        """See `Unseen`."""
        return 0


class Probe:
    """Lets a profiler mark what a dataset does, and asks it for what no profiler sees.

    Args:
        factor: The dataset's echoing factor.
        meter: Its meter.
        reader_count: How many readers there are.
        input: How the source is read.
        sees_waits: Whether it is training that waits for the dataset, and nobody ahead of it.
        num_fresh: Returns about how many fresh batches so many steps take at the factor in force.
        fill: Waits until so many fresh batches lie ready, at most so many seconds; returns
            whether they do.
        stats: Returns the dataset's counts so far.
        num_served: Returns how often it was asked for a batch, peeks included.
        unseen: Its fresh batches that no step has seen, and what the steps used.

    Attributes:
        sees_dataset: Whether there is a dataset to ask; see `without_dataset`.
    """

    sees_dataset = True

    def __init__(
        self,
        factor: EchoFactor,
        meter: Meter,
        *,
        reader_count: ReaderCount,
        input: Input,
        sees_waits: bool,
        num_fresh: Callable[[int], int],
        fill: Callable[[int, float], bool],
        stats: Callable[[], EchoStats],
        num_served: Callable[[], int],
        unseen: Unseen,
    ) -> None:
        self.factor = factor
        self._meter = meter
        self._reader_count = reader_count
        self.input = input
        self.sees_waits = sees_waits
        self.num_fresh = num_fresh
        self.fill = fill
        self.stats = stats
        self.num_served = num_served
        self.unseen = unseen

    @classmethod
    def without_dataset(cls, factor: EchoFactor) -> Probe:
        """What stands in where only the factor of another pipeline is known.

        All counts are 0, but for what the factor's `upstreams` say.
        """
        meter = Meter()
        probe = cls(
            factor,
            meter,
            reader_count=ReaderCount(Fixed(1), meter, num_cores(), lambda: False),
            input=Input(is_sequential=True),
            sees_waits=False,
            num_fresh=lambda num_steps: 0,
            fill=lambda num_batches, timeout_seconds: False,
            stats=lambda: EchoStats(echo_factor=factor.value),
            num_served=lambda: 0,
            unseen=Nothing(),
        )
        probe.sees_dataset = False
        return probe

    @property
    def num_readers(self) -> int:
        """How many reads can run at the same time."""
        return self._reader_count.number

    @property
    def readers_since(self) -> float:
        """When their number last changed, by the clock of the reads."""
        return self._reader_count.since

    @property
    def is_comparing(self) -> bool:
        """Whether less readers are being tried."""
        return self._reader_count.is_comparing

    def compare_readers(self) -> None:
        """Asks what half of the readers deliver, where their number is fixed and training waits."""
        self._reader_count.compare()

    def trials(self) -> Sequence[Trial]:
        """What different numbers of readers delivered."""
        return self._reader_count.plan.trials()

    @property
    def is_auto(self) -> bool:
        """Whether the number of readers follows what they bring."""
        return isinstance(self._reader_count.plan, Search)

    @property
    def batch_bytes(self) -> float:
        """Bytes of a fresh batch, the mean."""
        return self._meter.batch_bytes

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

    def recent_reads(self) -> Sequence[Read]:
        """The last reads that are done, by their end."""
        if self.sees_dataset:
            return self._meter.recent_reads()
        each = [upstream.reads() for upstream in self.factor.upstreams]
        return max(filter(None, each), key=lambda reads: reads[-1].end, default=[])

    def num_uses(self) -> int:
        """How often elements were used so far, where an echo is no dataset's."""
        return sum(upstream.num_uses() for upstream in self.factor.upstreams)

    def pause(self) -> None:
        """See `Meter.pause`."""
        self._meter.pause()

    def resume(self) -> None:
        """See `Meter.resume`."""
        self._meter.resume()

    def num_missed(self) -> int:
        """How often a fresh batch was asked for and none lay ready."""
        return self._meter.num_missed
