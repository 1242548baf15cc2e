"""Echoing: every upstream output is used several times, then the stream is shuffled.

How often, with a factor e that need not be an integer (Choi et al., arXiv 1907.05550, section 2):
the first n outputs together get floor(n * e) uses. That is exact and never random. `Echo` counts
so one use after the other, while the factor may change; `num_uses_due` does for a factor that
stays.

Pure iterators with explicit state. They know no batches, no threads and no clock: anything that
can be iterated over can be echoed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

T = TypeVar("T")

NUM_KEPT = 4
"""Outputs that are kept for gaps: readers deliver in order, so after a slow read several come at
once, and then none for a while."""


class Use(NamedTuple, Generic[T]):
    """One use of an upstream output.

    Attributes:
        item: The upstream output.
        is_only: Whether this is the only use of `item`. If not, whoever changes it in place
            must work on a copy.
        number: Which use of `item` it is, from 1; 0 if that isn't known.
    """

    item: T
    is_only: bool
    number: int


def num_uses_due(numbers: np.ndarray, factor: float) -> np.ndarray:
    """How often outputs are to be used: output k gets floor((k + 1) * e) - floor(k * e) uses.

    Args:
        numbers: Numbers of the outputs in the stream, (num,) int64.
        factor: The echoing factor e, a float >= 1.

    Returns:
        (num,) float64, since a float holds the largest factors.
    """
    fraction, whole = math.modf(factor)
    # Fractions of 2 ** 64 are exact for every float >= 1, and their sum wraps modulo 1.
    step = np.uint64(math.ldexp(fraction, 64))
    phases = (numbers.astype(np.uint64) + np.uint64(1)) * step
    return whole + (phases < step)


class Gap(Protocol):
    """What an echo asks of its upstream: whether it has nothing to give, or more than enough."""

    @property
    def max_uses(self) -> float | None:
        """How often an output may be used in a gap; None: gaps are waited through."""

    @property
    def min_uses(self) -> float | None:
        """How often an output is used at least while upstream is full; None: as often as ever."""

    def is_open(self) -> bool:
        """Whether somebody waits, and nothing lies ready upstream."""

    def is_full(self) -> bool:
        """Whether so much lies ready that upstream soon has no room to go on."""


class NoGap:
    """Waits through all gaps."""

    max_uses = min_uses = None

    def is_open(self) -> bool:
        """See `Gap`."""
        return False

    def is_full(self) -> bool:
        """See `Gap`."""
        return False


@dataclass
class _Kept(Generic[T]):
    """An output that may be used again in a gap."""

    item: T
    num_uses: int


class Echo(Iterator[Use[T]]):
    """Repeats every upstream output `factor()` times.

    The factor is asked for at every use, so a change takes effect at once: a lower one ends the
    repetition of the current output, a higher one prolongs it. What was said to be the last use is
    the last, but for a gap: where nothing lies ready upstream, one of the last `NUM_KEPT` outputs,
    the least used, is used again, up to `gap.max_uses` times in all. And where upstream is full, an
    output that was used `gap.min_uses` times makes room for the next. Nobody is owed less or more.

    Args:
        upstream: The outputs to repeat.
        factor: Returns the echoing factor, a float >= 1.
        gap: Tells whether upstream has nothing to give, or more than enough.
        credit: State of an interrupted stream: the uses it still owed, in [0, 1).
        num_uses: State of an interrupted stream: how often the first output of `upstream` was
            used already.
        num_fresh: State of an interrupted stream: how many outputs had been used at least once.

    Attributes:
        num_extra: Uses that were made in gaps.
    """

    def __init__(
        self,
        upstream: Iterator[T],
        factor: Callable[[], float],
        gap: Gap | None = None,
        *,
        credit: float = 0.0,
        num_uses: int = 0,
        num_fresh: int = 0,
    ) -> None:
        self._upstream = upstream
        self._factor = factor
        # Binary fractions keep the sum exact: with floats, 0.1 * 10 uses would get lost.
        self._credit = Fraction(credit)
        self._gap = gap or NoGap()
        self._in_use: list[T] = []  # at most one
        self._kept: deque[_Kept[T]] = deque(maxlen=NUM_KEPT)
        self.num_extra = 0
        self._last_factor: Fraction | None = None
        self.num_uses = num_uses
        self.num_fresh = num_fresh

    @property
    def credit(self) -> float:
        """Uses owed by the outputs that are through, in [0, 1); an exact float."""
        return float(self._credit)

    def __next__(self) -> Use[T]:
        factor = Fraction(self._factor())
        if not self._in_use and (extra := self._bridged()):
            return extra
        if self.num_uses and factor != self._last_factor and self._is_used_up(factor):
            self._end(factor)  # the factor was lowered since the last use
        elif self._makes_room():
            self._end(Fraction(self.num_uses))
        if not self._in_use and (extra := self._bridged()):
            return extra
        self._last_factor = factor
        (item,) = self._in_use
        self.num_fresh += self.num_uses == 0
        self.num_uses += 1
        is_last = self._is_used_up(factor)
        # Read once: what is said to be the only use must not be used again.
        is_kept = self._gap.max_uses is not None
        is_only = is_last and self.num_uses == 1 and not is_kept
        use = Use(item, is_only, self.num_uses)
        if is_kept:
            self._keep(item)
        else:
            self._kept.clear()
        if is_last:
            self._end(factor)
        return use

    def _bridged(self) -> Use[T] | None:
        """Takes the next output into use; in a gap, returns one more use of another instead."""
        most = self._gap.max_uses
        if most is not None and self._kept:
            least = min(self._kept, key=lambda kept: kept.num_uses)
            if least.num_uses + 1 <= most and self._gap.is_open():
                least.num_uses += 1
                self.num_extra += 1
                return Use(least.item, is_only=False, number=least.num_uses)
        self._in_use.append(next(self._upstream))
        return None

    def _keep(self, item: T) -> None:
        if not (self._kept and self._kept[-1].item is item):
            self._kept.append(_Kept(item, 0))
        self._kept[-1].num_uses = self.num_uses

    def _makes_room(self) -> bool:
        least = self._gap.min_uses
        return least is not None and self.num_uses >= max(1.0, least) and self._gap.is_full()

    def _is_used_up(self, factor: Fraction) -> bool:
        """Whether another use of the current output would be one too many."""
        return self.num_uses + 1 > self._credit + factor

    def _end(self, factor: Fraction) -> None:
        # A factor lowered in mid-repetition leaves no debt: every output is used at least once.
        self._credit = max(Fraction(0), self._credit + factor - self.num_uses)
        self._in_use.clear()
        self.num_uses = 0


class ShuffleBuffer(Iterator[T]):
    """Draws from a buffer of elements of the stream, so that copies don't stand in a row.

    While there is room, each draw takes in one element more than it gives: so the buffer fills as
    it goes, and no draw waits for all of it. Where there is none, it gives what it holds; and what
    the stream has next, if it holds nothing.

    Each draw is a function of the seed, the number of the draw and how much is held, so the state
    is what the buffer holds and a count.

    Args:
        upstream: The stream to shuffle.
        has_room: Tells, of what the buffer holds, whether it may hold one element more before the
            next draw. With room for no more than one, the order stays as it is.
        seed: Seed of the draws, a non-negative integer.
        num_drawn: State of an interrupted stream: how many elements were drawn.
        held: State of an interrupted stream: what the buffer held.
    """

    def __init__(
        self,
        upstream: Iterator[T],
        has_room: Callable[[Sequence[T]], bool],
        *,
        seed: int,
        num_drawn: int = 0,
        held: tuple[T, ...] = (),
    ) -> None:
        self._upstream = upstream
        self._has_room = has_room
        self._seed = seed
        self._held = list(held)
        self.num_drawn = num_drawn

    @property
    def held(self) -> tuple[T, ...]:
        """What the buffer holds, in the order that a restart needs."""
        return tuple(self._held)

    def __next__(self) -> T:
        for _ in range(2):
            if not self._held or self._has_room(self._held):
                self._held.append(next(self._upstream))
        if len(self._held) > 1:
            drawn = self._draw()
            self._held[drawn], self._held[-1] = self._held[-1], self._held[drawn]
        self.num_drawn += 1
        return self._held.pop()

    def _draw(self) -> int:
        bits = np.random.Philox(key=self._seed, counter=self.num_drawn)
        return int(np.random.Generator(bits).integers(len(self._held)))
