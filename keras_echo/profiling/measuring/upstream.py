"""What a fresh batch costs, from the reads that a dataset timed. Pure: no clock, no I/O, no Keras.

Two figures, and when each of them is right:

- *Seconds per read over the readers* is the least that a batch costs. It costs more where readers
  share a network or a disk, which one that reads alone doesn't notice; where they wait for one
  another, since batches are delivered in order; and where the source reads ahead by itself, so that
  some batches lie ready in it.
- *Seconds from one read's end to the next*, less those in which readers were held (they had
  nothing to do, because nobody took what they had read), is what they deliver. That is right as
  long as they are hardly ever held. A reader that never rests is always in a read, so nothing lies
  ready in the source either.

The second has an error of one round of the readers, since they may end together. Within that error
the first is taken. Where readers are held too much for it, the larger of them is a lower bound.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from keras_echo.profiling.measuring.result import Upstream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keras_echo.metering import Read

_MOST_HELD = 0.1
"""Share of the time for which readers may be held and still show what they can deliver."""

_HARDLY_HELD = 0.05
"""The same, where a source may read ahead meanwhile."""

_NUM_ROUNDS = 8  # of the readers
_NUM_READS = 4  # of each reader that tell of reading where few were made since it changed


def upstream(
    reads: Sequence[Read], num_readers: int, *, may_read_ahead: bool, since: float = -math.inf
) -> Upstream | None:
    """Works out what a fresh batch costs.

    Args:
        reads: Those that are done, by their end. The first one of each reader counts only where
            there are no others.
        num_readers: How many reads can run at the same time.
        may_read_ahead: Whether the source may have batches ready before they are asked for.
        since: When something last changed, by the clock of the reads. Earlier ones tell of reading
            only where there are few others.

    Returns:
        What it costs; None if nothing was read.
    """
    later = [read for read in reads if read.end >= since]
    reads = later if len(later) > num_readers else reads[-_NUM_READS * num_readers :]
    if not reads:
        return None
    held_fraction = _held_fraction(reads[0], reads[-1])
    start = _start(reads, num_readers, may_read_ahead)
    if start is None:
        warm = [read for read in reads if not read.is_first] or reads
        seconds = max(_seconds_per_read(warm) / num_readers, _seconds_between(reads))
        return Upstream(seconds, "lower", held_fraction)
    done = reads[start + 1 :]
    at_least, delivered = _seconds_per_read(done) / num_readers, _seconds_between(reads[start:])
    is_alike = abs(delivered - at_least) * len(done) <= num_readers * at_least
    return Upstream(at_least if is_alike else delivered, "exact", held_fraction)


def _start(reads: Sequence[Read], num_readers: int, may_read_ahead: bool) -> int | None:
    """The read after whose end the readers show what they can deliver; None if they never do."""
    # A read that has the source to itself takes as long as any other, held or not.
    most_held = 1.0 if num_readers == 1 else _MOST_HELD
    if may_read_ahead:
        most_held = _HARDLY_HELD
    warm = max((number for number, read in enumerate(reads) if read.is_first), default=0)
    num_since = len(reads) - 1 - warm
    if num_since >= num_readers and _held_fraction(reads[warm], reads[-1]) <= most_held:
        return warm
    # Of a part of them, it takes more to tell: a source may give several at once, then none.
    for number in range(warm + 1, len(reads) - 1 - _NUM_ROUNDS * num_readers):
        if _held_fraction(reads[number], reads[-1]) <= most_held:
            return number
    return None


def _seconds_between(reads: Sequence[Read]) -> float:
    """From one end to the next, without the time in which readers were held; 0 if unknown."""
    seconds, held_seconds = _between(reads[0], reads[-1])
    return (seconds - held_seconds) / (len(reads) - 1) if len(reads) > 1 else 0.0


def _held_fraction(first: Read, last: Read) -> float:
    seconds, held_seconds = _between(first, last)
    return held_seconds / seconds if seconds > 0 else 0.0


def _between(first: Read, last: Read) -> tuple[float, float]:
    """Seconds from one end to the next, and those of them in which readers were held.

    Those in which nobody trained are left out.
    """
    paused_seconds = last.paused_seconds - first.paused_seconds
    return last.end - first.end - paused_seconds, last.held_seconds - first.held_seconds


def _seconds_per_read(reads: Sequence[Read]) -> float:
    return statistics.fmean(read.seconds for read in reads)
