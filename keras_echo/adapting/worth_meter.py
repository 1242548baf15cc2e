"""When it is measured what uses are worth, and how the factor's limit follows."""

from __future__ import annotations

import math
import time
import warnings
from typing import TYPE_CHECKING

from keras_echo.adapting.report import reason
from keras_echo.adapting.schedule import BUDGET, URGENT_BUDGET
from keras_echo.adapting.worth import Worth, last_use, next_limit
from keras_echo.adapting.worth_window import NUM_AHEAD, NUM_STEPS, WorthWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from keras_echo.adapting.worth_window import Loss
    from keras_echo.probe import Unseen

_COMPILING_SECONDS = 0.2  # what the first window takes at least: short trainings do without
_PATIENCE = 4.0  # how long to wait for batches, in multiples of what they should take


class WorthMeter:
    """Measures what uses are worth, in windows that keep to their share of the time.

    Args:
        unseen: The fresh batches, and what the steps use.
        follows: Whether the factor is to follow it. Then windows take more of the time as long as
            it isn't clear whether the last use helps, and a warning says why nothing can be learnt.
        clock: Seconds.

    Attributes:
        worth: What was learnt so far.
        limit: The most uses that are of use; infinity for any number.
        problem: Why nothing more can be learnt in this `fit()`; None as long as it can.
    """

    def __init__(
        self, unseen: Unseen, *, follows: bool, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._unseen = unseen
        self._follows = follows
        self._clock = clock
        self.worth = Worth()
        self.limit = math.inf
        self.problem: str | None = None
        self._spent_seconds = 0.0
        self._window_seconds = math.nan  # what one costs
        self._loss: Loss | None = None
        self._synchronize: Callable[[], None] | None = None

    def begin(self, loss: Loss, synchronize: Callable[[], None], problem: str | None) -> None:
        """A `fit()` begins.

        Args:
            loss: The loss of its model.
            synchronize: See `WorthWindow`.
            problem: Why nothing can be learnt in it, if nothing can.
        """
        self._loss, self._synchronize, self.problem = loss, synchronize, None
        self._spent_seconds, self._window_seconds = 0.0, math.nan
        self._unseen.num_ahead = 0  # an exception may have ended the last one
        if problem:
            self._give_up(problem)

    def end(self) -> None:
        """The `fit()` ends."""
        self._loss = self._synchronize = None  # which refers to who refers to this
        self._unseen.num_ahead = 0

    def is_due(self, seconds: float, factor: float) -> bool:
        """Whether another window keeps to its share of the time.

        Args:
            seconds: How long `fit()` has run.
            factor: The echoing factor. At 1, there are no other uses than first ones.
        """
        if self._loss is None or self.problem is not None or factor == 1:
            return False
        expected_seconds = self._window_seconds
        if math.isnan(expected_seconds):
            expected_seconds = _COMPILING_SECONDS
        share = URGENT_BUDGET if self._follows and not self._helps(factor) else BUDGET
        return self._spent_seconds + expected_seconds <= share * seconds

    def _helps(self, factor: float) -> bool:
        """Whether the last use surely does."""
        last = self.worth.estimates().get(last_use(factor))
        return last is not None and last.helps

    def follow(self, factor: float) -> str | None:
        """Moves the limit, where the factor is to follow and uses surely help or do harm.

        Returns:
            Why; None where it stays.
        """
        estimates = self.worth.estimates()
        limit = next_limit(estimates, factor, self.limit) if self._follows else self.limit
        if limit == self.limit:
            return None
        if limit > self.limit:
            self.worth.forget(above=self.limit)
        self.limit = limit
        return reason(estimates, last_use(factor))

    def window(self, step: int, read_seconds: float) -> Generator[None, None, None]:
        """A window; the first one only learns what they cost, since the loss must be compiled.

        Args:
            step: The number of its first step in the stream.
            read_seconds: What a fresh batch takes. Where training starves, some are waited for:
                then it costs no fresh batch.
        """
        assert self._loss is not None
        assert self._synchronize is not None
        self._unseen.num_ahead = NUM_AHEAD  # from now on, they lie ready for the next ones, too
        began = self._clock()
        self._unseen.fill(NUM_AHEAD, _PATIENCE * NUM_AHEAD * read_seconds)
        self._spent_seconds += self._clock() - began
        is_first = math.isnan(self._window_seconds)
        num_steps = 1 if is_first else NUM_STEPS
        window = WorthWindow(
            self._unseen, self._loss, self._synchronize, step, num_steps, self._clock
        )
        try:
            with self._unseen.steady():
                yield from window.record()
        except Exception as error:
            self._give_up(f"the loss on a fresh batch can't be had: {error or repr(error)}")
        finally:
            self._spent_seconds += window.seconds
            if window.decreases:
                self._window_seconds = (NUM_STEPS + 1) * window.step_seconds
                self._learn(window.uses, window.decreases)

    def _learn(self, uses: list[int], decreases: list[float]) -> None:
        if not any(uses):
            self._give_up(
                "a batch of echo='example' mixes the uses of its examples, and a step can't be "
                "attributed to one of them"
            )
        elif len(uses) == NUM_STEPS and not any(decreases):
            self._give_up("the loss that compute_loss() returns doesn't change in training")
        else:
            self.worth.add(uses, decreases)

    def _give_up(self, problem: str) -> None:
        self.problem = problem
        self._unseen.num_ahead = 0
        if self._follows:
            warnings.warn(
                f"What an echoed step is worth isn't measured: {problem}. The factor doesn't "
                "follow it.",
                RuntimeWarning,
                stacklevel=2,
            )
