"""Why a read takes as long as it does, from what a dataset timed. Pure: no clock, no I/O."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

from keras_echo.profiling.measuring.queue import longer_queue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keras_echo.metering import Read


@dataclass(frozen=True)
class Setup:
    """How a source is read, and what there is to read it with. NaN is what is not known."""

    num_readers: int
    queue_size: int
    """Batches that are read ahead."""
    num_cores: int
    is_sequential: bool
    """Whether batches can only be read one after the other, by one reader."""
    is_auto: bool
    """Whether the number of readers follows what they bring."""
    uses_processes: bool
    can_be_cached: bool
    """Whether a batch can be asked for by an index and is kept nowhere yet."""
    num_batches: float = math.nan
    """Batches in a pass."""
    batch_bytes: float = math.nan
    free_bytes: float = math.nan
    """Memory that can be had."""


@dataclass(frozen=True)
class Reading:
    """What a read consists of, and what was seen of other ways to read. NaN is what is not known.

    A read that isn't computed waits: for storage or a network, or for a processor or the
    interpreter's lock that others have.
    """

    setup: Setup
    read_seconds: float
    """From the beginning of a read to its end: the mean."""
    compute_seconds: float
    """Of it, for how long a processor worked."""
    locked_seconds: float = math.nan
    """Of that, for how long it held the interpreter's lock: so much of each read no thread does at
    the same time as another."""
    fewer_readers: float = math.nan
    """With how many readers it was tried."""
    fewer_seconds: float = math.nan
    """What a fresh batch cost with them."""
    usual_seconds: float = math.nan
    """What it cost with all of them, right before."""
    longer_queue: float = math.nan
    """With how many batches read ahead the same reads would give training a batch in
    `longer_queue_seconds`, and not only in `queue_seconds`: they come unevenly. NaN where a longer
    queue would change nothing."""
    longer_queue_seconds: float = math.nan
    queue_seconds: float = math.nan

    @property
    def waiting_fraction(self) -> float:
        """Share of a read in which no processor works on it."""
        if not self.read_seconds > 0:
            return math.nan
        return max(0.0, 1.0 - self.compute_seconds / self.read_seconds)

    def as_stats(self) -> dict[str, float]:
        """All that is known, as numbers by name."""
        known = {**vars(self.setup), **vars(self)}
        del known["setup"]
        return {name: float(value) for name, value in known.items() if math.isfinite(value)}

    @classmethod
    def from_stats(cls, stats: Mapping[str, object]) -> Self | None:
        """What `as_stats` made; None where something that is always known is missing or absurd."""
        known = {
            name: value
            for name, value in stats.items()
            if isinstance(value, float) and 0 <= value < _MOST
        }
        try:
            setup = Setup(
                **{
                    field.name: _KINDS[str(field.type)](known[field.name])
                    for field in fields(Setup)
                    if field.name in known
                }
            )
            if not all(
                0 < number < _MOST_READERS for number in (setup.num_readers, setup.num_cores)
            ):
                return None
            names = {field.name for field in fields(cls)} & known.keys()
            return cls(setup, **{name: known[name] for name in names})
        except TypeError:
            return None


_MOST = 1e18  # seconds, bytes or batches in a trace: what is more was made up
_MOST_READERS = 2**16  # or processors
_KINDS = {"int": int, "bool": bool, "float": float}


def reading(
    reads: Sequence[Read],
    setup: Setup,
    *,
    locked_fraction: float = math.nan,
    trials: Sequence[tuple[int, float]] = (),
    step_seconds: float = math.nan,
) -> Reading | None:
    """Works out what a read consists of.

    Args:
        reads: Those that are done, by their end.
        setup: How they were made.
        locked_fraction: Share of the time in which somebody held the interpreter's lock.
        trials: What a fresh batch cost with so many readers.
        step_seconds: What a step takes that doesn't wait.

    Returns:
        The answer; None if nothing was read.
    """
    warm = [read for read in reads if not read.is_first] or list(reads)
    if not warm:
        return None
    compute_seconds = statistics.fmean(read.compute_seconds for read in warm)
    between_seconds = (warm[-1].end - warm[0].end) / max(1, len(warm) - 1)
    fewer, usual = _compared(trials, setup.num_readers)
    most = setup.free_bytes / 2 / setup.batch_bytes if setup.batch_bytes > 0 else math.inf
    queue = longer_queue(
        [read.seconds for read in warm],
        setup.num_readers,
        setup.queue_size,
        step_seconds,
        most=most,
    )
    return Reading(
        setup,
        statistics.fmean(read.seconds for read in warm),
        compute_seconds,
        # Whoever else holds it, a read doesn't hold it for longer than it computes.
        locked_seconds=min(locked_fraction * between_seconds, compute_seconds),
        fewer_readers=fewer[0],
        fewer_seconds=fewer[1],
        usual_seconds=usual,
        longer_queue=queue.size,
        longer_queue_seconds=queue.seconds,
        queue_seconds=queue.usual_seconds,
    )


def _compared(
    trials: Sequence[tuple[int, float]], num_readers: int
) -> tuple[tuple[float, float], float]:
    """The trial with the most of fewer readers, and that with all of them."""
    by_number = dict(trials)
    fewer = [number for number in by_number if number < num_readers]
    if num_readers not in by_number or not fewer:
        return (math.nan, math.nan), math.nan
    return (max(fewer), by_number[max(fewer)]), by_number[num_readers]
