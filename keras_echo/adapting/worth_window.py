"""What each step does to the loss on unseen data: a short stretch of training, now and then."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from keras_echo.memory.batch import Batch
    from keras_echo.probe import Unseen
    from keras_echo.reading.stream import Position

NUM_UNSEEN = 2
"""Batches on which the loss is taken. It varies with the steps more than with these batches, so
more of them bring less than more steps."""

NUM_AHEAD = NUM_UNSEEN + 1
"""Fresh batches that should lie ready for it: the next one is about to be used."""

NUM_STEPS = 16
"""Steps in a window. The first two tell what momentum does."""


class Loss(Protocol):
    """The loss of a model on a batch; see `keras_echo.adapting.unseen_loss`."""

    def __call__(self, batch: Batch) -> float:
        """The loss under the weights as they are."""

    def takes(self, batch: Batch) -> bool:
        """Whether the batch is like those before, for which all is compiled."""


@dataclass
class WorthWindow:
    """Takes the loss on the next fresh batches before and after each step.

    They lie in the readers' queue, and no step of this pass has seen them. One that leaves the
    queue is of no more use, and is replaced.

    Attributes:
        unseen: The fresh batches, and what the steps use.
        loss: The loss of a batch.
        synchronize: Waits until the device has done all that it was given.
        first_step: The number of the first step in the stream.
        num_steps: How many steps.
        clock: Seconds.
        decreases: For each step, by how much the loss fell in it; NaN where that isn't known.
        seconds: How long training was kept from its steps so far.
        step_seconds: How long before the last one.
    """

    unseen: Unseen
    loss: Loss
    synchronize: Callable[[], None]
    first_step: int
    num_steps: int = NUM_STEPS
    clock: Callable[[], float] = time.perf_counter
    decreases: list[float] = field(default_factory=list, init=False)
    seconds: float = field(default=0.0, init=False)
    step_seconds: float = field(default=0.0, init=False)

    @property
    def uses(self) -> list[int]:
        """For each step, which use of its batch it was."""
        first = self.first_step
        return [self.unseen.number_of_use(first + number) for number in range(len(self.decreases))]

    def record(self) -> Generator[None, None, None]:
        """Records it; to be advanced before each of the steps, and once after the last."""
        batches: dict[Position, Batch] = {}
        before: dict[Position, float] = {}
        for number in range(self.num_steps + 1):
            if number:
                yield
            self.synchronize()
            began = self.clock()
            batches = self._unseen_of(batches)
            losses = {position: self.loss(batch) for position, batch in batches.items()}
            if number:
                changes = [before[each] - loss for each, loss in losses.items() if each in before]
                self.decreases.append(statistics.fmean(changes) if changes else math.nan)
            before = losses
            self.step_seconds = self.clock() - began
            self.seconds += self.step_seconds

    def _unseen_of(self, batches: dict[Position, Batch]) -> dict[Position, Batch]:
        """Those of the batches that are still unseen, and others for the rest."""
        upcoming = self.unseen.upcoming()
        batches = {position: batch for position, batch in batches.items() if position in upcoming}
        for position in reversed(upcoming):  # those that come last stay longest
            if len(batches) == NUM_UNSEEN:
                break
            if position not in batches and self.loss.takes(batch := upcoming[position]()):
                batches[position] = batch
        return batches
