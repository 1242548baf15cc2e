"""Example echoing: which examples of the stream stand in which batch.

Index arrays alone, no data: the examples are numbered in the order in which they are read.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from keras_echo.echoing.repetition import num_uses_due

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.reading.stream import Position


class Held(NamedTuple):
    """The examples in the buffer, in the order in which they were read; never changed in place.

    Attributes:
        numbers: Their numbers in the stream, ascending, (num_held,) int64.
        num_uses: How often each was used so far, (num_held,) int64.
    """

    numbers: np.ndarray
    num_uses: np.ndarray


class Block(NamedTuple):
    """The examples of one fresh batch, as a stretch of the stream.

    Attributes:
        position: The place of the batch among the fresh batches.
        first: Number of its first example.
        num: How many examples it has.
    """

    position: Position
    first: int
    num: int

    @property
    def end(self) -> int:
        """Number of the first example after it."""
        return self.first + self.num


NOTHING_HELD = Held(np.zeros(0, np.int64), np.zeros(0, np.int64))


class ExampleBuffer:
    """A buffer of examples, each of which stays until it was used `factor()` times.

    Every batch is drawn without replacement from all that is held, so no example stands in a batch
    twice. The examples whose uses are over make room for the next ones. No draw waits for a full
    buffer: it fills as it goes, by at most one batch's worth for each draw. (At factor 1, by two: a
    draw uses up all that it draws there, and the buffer would never fill.) A changed factor acts on
    all that is held, before the next draw: a lower one ends the uses of what was used often enough.
    Each draw is a function of the seed and the number of the draw alone.

    Within a batch, the examples keep the order in which they were read. So a buffer of the size of
    a batch doesn't shuffle, and at factor 1 it passes the stream on as it is.

    Args:
        factor: Returns the echoing factor, a float >= 1.
        batch_size: How many examples are drawn at a time.
        capacity: How many examples are held, at most; `batch_size` or more.
        seed: Seed of the draws, a non-negative integer.
        num_drawn: State of an interrupted stream: how many batches were drawn.
        num_taken: State of an interrupted stream: how many examples were taken into the buffer.
        held: State of an interrupted stream: what the buffer held.

    Attributes:
        batch_size: How many examples are drawn at a time.
        held: What the buffer holds.
        num_drawn: How many batches were drawn.
        num_taken: How many examples were taken into the buffer.
    """

    def __init__(
        self,
        factor: Callable[[], float],
        batch_size: int,
        capacity: int,
        *,
        seed: int,
        num_drawn: int = 0,
        num_taken: int = 0,
        held: Held = NOTHING_HELD,
    ) -> None:
        self._factor = factor
        self.batch_size = batch_size
        self._capacity = capacity
        self._seed = seed
        self.num_drawn = num_drawn
        self.num_taken = num_taken
        self.held = held
        self._acting = math.nan  # the factor of the current draw
        self._num_new = 0  # examples that were taken in for the current draw
        # Where the examples lie: those of `held` first, then the free places.
        self._slots = np.arange(capacity)

    @property
    def slots(self) -> np.ndarray:
        """Where the examples of `held` lie: (num_held,) places of 0 to `capacity` - 1."""
        return self._slots[: len(self.held.numbers)]

    def begin(self, at_least: float = 1.0) -> None:
        """Begins a draw: asks for the factor, and lets go of what a lower one gives no more use.

        Args:
            at_least: A factor that is to act if the one asked for is lower.
        """
        factor = max(self._factor(), at_least)
        if factor != self._acting:
            self._acting = factor
            numbers, num_uses = self.held
            self._keep((num_uses == 0) | (num_uses < num_uses_due(numbers, factor)))

    @property
    def num_missing(self) -> int:
        """How many examples must be taken in, once a draw was begun, before it can be done."""
        most_new = self.batch_size * (1 if self._acting > 1 else 2)
        return min(self._capacity - len(self.held.numbers), most_new - self._num_new)

    def take(self, num: int) -> np.ndarray:
        """Takes in the next `num` examples of the stream, at most `num_missing`.

        Returns:
            Where to put them, (num,) places.
        """
        numbers, num_uses = self.held
        self.held = Held(
            np.append(numbers, np.arange(self.num_taken, self.num_taken + num)),
            np.append(num_uses, np.zeros(num, np.int64)),
        )
        self.num_taken += num
        self._num_new += num
        return self.slots[len(numbers) :]

    def draw(self) -> np.ndarray:
        """Draws a batch. `begin` comes first, then `take` what is missing.

        If less than a batch is held, that is the batch.

        Returns:
            Where they lie, (num,) places, valid until the next `take`.
        """
        # Draws take many random numbers each: the upper half of the counter keeps them apart.
        bits = np.random.Philox(key=self._seed, counter=self.num_drawn << 128)
        num_held = len(self.held.numbers)
        num = min(self.batch_size, num_held)
        drawn = np.random.Generator(bits).choice(num_held, num, replace=False, shuffle=False)
        drawn.sort()
        self.num_drawn += 1
        self._num_new = 0
        slots = self.slots[drawn]
        self._use(drawn)
        return slots

    def _use(self, drawn: np.ndarray) -> None:
        numbers, num_uses = self.held[0], self.held[1].copy()
        num_uses[drawn] += 1
        stays = np.ones(len(numbers), bool)
        stays[drawn] = num_uses[drawn] < num_uses_due(numbers[drawn], self._acting)
        self.held = Held(numbers, num_uses)
        self._keep(stays)

    def _keep(self, stays: np.ndarray) -> None:
        numbers, num_uses = self.held
        self._slots = np.concatenate(
            [self.slots[stays], self.slots[~stays], self._slots[len(numbers) :]]
        )
        self.held = Held(numbers[stays], num_uses[stays])
