"""What a longer queue would bring: the reads that were timed, through queues of other sizes. Pure.

Batches are delivered in order. A reader begins its next read as soon as the queue has room, and a
step takes always the same time.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST = 1024  # batches in a queue
_GAIN = 1.05  # of the rate, from which on a longer queue is worth its memory
_ENOUGH = 1.03  # times the best


class Queue(NamedTuple):
    """A longer queue. NaN where none would be worth while.

    Attributes:
        size: Batches that it holds.
        seconds: From one batch to the next, with it.
        usual_seconds: The same without it.
    """

    size: float
    seconds: float
    usual_seconds: float


NONE = Queue(math.nan, math.nan, math.nan)


def longer_queue(
    read_seconds: Sequence[float],
    num_readers: int,
    queue_size: int,
    step_seconds: float,
    *,
    most: float = math.inf,
) -> Queue:
    """Looks for the shortest queue that is nearly as good as the longest.

    Args:
        read_seconds: What each read took.
        num_readers: How many run at the same time.
        queue_size: How many batches the queue holds now.
        step_seconds: What a step takes that doesn't wait.
        most: How many batches a queue may hold.
    """
    usual_size = max(queue_size, num_readers)
    sizes = [usual_size]
    while 2 * sizes[-1] <= min(most, _MOST):
        sizes.append(2 * sizes[-1])
    if len(sizes) == 1 or len(read_seconds) <= usual_size or not step_seconds > 0:
        return NONE
    seconds = [between(read_seconds, num_readers, size, step_seconds) for size in sizes]
    enough = next(place for place, one in enumerate(seconds) if one <= _ENOUGH * seconds[-1])
    if seconds[0] < _GAIN * seconds[enough]:
        return NONE
    return Queue(sizes[enough], seconds[enough], seconds[0])


def between(
    read_seconds: Sequence[float], num_readers: int, queue_size: int, step_seconds: float
) -> float:
    """Seconds from one batch to the next, the mean of all, after the first round of the readers."""
    free = [0.0] * num_readers  # when each reader is
    taken: list[float] = []
    for place, seconds in enumerate(read_seconds):
        room = taken[place - queue_size] if place >= queue_size else 0.0
        end = max(heapq.heappop(free), room) + seconds
        heapq.heappush(free, end)
        taken.append(max(end, taken[-1] + step_seconds if taken else 0.0))
    first = min(num_readers, len(taken) - 1)
    return (taken[-1] - taken[first - 1]) / (len(taken) - first) if first else math.nan
