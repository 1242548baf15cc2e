"""When windows open, and what makes one urgent. Pure: no clock, no I/O, no Keras."""

from __future__ import annotations

import math

BUDGET = 0.005
"""Share of the training time that windows may take, those apart that are urgent."""

FEWEST_CALLS = 3
"""Calls of the train function below which a window isn't worth opening."""

CHANGE = 0.25
"""Relative difference from which on the time of a read has changed."""

NUM_COLD = 3
"""Calls after a pause that are not counted: the first took 1.5 times as long on a CPU."""

NUM_READY = 5
"""Calls that tell what a step takes which never waits."""


class Schedule:
    """Decides before each call of the train function whether a window opens there.

    Windows lie within an epoch, since validation and whatever else happens between two epochs is
    no part of a step. The first window of a `fit()` opens after the warm-up. A later one is left
    out where windows have taken more than their share of the time (`BUDGET`), unless it is urgent.

    Args:
        warmup_steps: Optimizer steps at the beginning of a `fit()` without a window.
        profile_steps: Optimizer steps in a window.
        profile_freq: Optimizer steps from one window to the next; None for one in an epoch.

    Attributes:
        next_step: The optimizer step at which to ask again; infinity for not in this epoch.
    """

    def __init__(self, warmup_steps: int, profile_steps: int, profile_freq: int | None) -> None:
        self._warmup_steps = warmup_steps
        self._profile_steps = profile_steps
        self._profile_freq = profile_freq
        self._is_first = True
        self._is_repeating = False
        self._spent_seconds = 0.0
        self._epoch_end = math.inf
        self._steps_per_call = 1
        self._num_ready_calls = 0
        self._warm_step = 0
        self.next_step = math.inf

    def begin_fit(self, step: int, steps_per_call: int) -> None:
        """A `fit()` begins, with so many optimizer steps in each call of the train function."""
        self._is_first = True
        self._is_repeating = False
        self._spent_seconds = 0.0
        self._steps_per_call = steps_per_call
        # They belong to the warm-up. Where it's too short for them, there are none.
        num_possible = self._warmup_steps // steps_per_call
        self._num_ready_calls = NUM_COLD + NUM_READY if num_possible >= NUM_COLD + NUM_READY else 0
        self._warm_step = step + self._warmup_steps
        self.next_step = step + self._lead

    def begin_epoch(self, step: int, num_steps: float) -> None:
        """An epoch begins.

        Args:
            step: Optimizer steps so far.
            num_steps: Optimizer steps of the epoch; infinity where nobody knows.
        """
        self._epoch_end = step + num_steps
        if step >= self.next_step or (self._profile_freq is None and not self._is_first):
            # Not at once: readers and device have only begun. But not so late that it's cut off.
            ready_steps = self._num_ready_calls * self._steps_per_call
            room = max(0, num_steps - ready_steps - self._profile_steps - self._steps_per_call)
            self.next_step = step + min(self._lead, room)

    def num_calls(self, step: int, seconds: float, is_urgent: bool) -> tuple[int, int]:
        """Decides on a window that would open now.

        Args:
            step: Optimizer steps so far.
            seconds: How long `fit()` has run.
            is_urgent: Whether something has changed.

        Returns:
            How many calls it is to have, ready ones and those in the trace; none for no window.
        """
        wanted = max(FEWEST_CALLS, math.ceil(self._profile_steps / self._steps_per_call))
        # One call more must follow in the epoch: where it begins is where the window's last ends.
        possible = min(
            wanted + self._num_ready_calls, (self._epoch_end - step - 1) // self._steps_per_call
        )
        if possible < FEWEST_CALLS:
            self.next_step = self._epoch_end
            return 0, 0
        ready = self._num_ready_calls if possible >= self._num_ready_calls + FEWEST_CALLS else 0
        if ready == 0 and step < self._warm_step:
            self.next_step = self._warm_step
            return 0, 0
        self.next_step = math.inf if self._profile_freq is None else step + self._profile_freq
        is_urgent = is_urgent or self._is_first or self._is_repeating
        if not is_urgent and self._spent_seconds > BUDGET * seconds:
            return 0, 0
        self._is_first = self._is_repeating = False
        return ready, int(min(wanted, possible - ready))

    def repeat(self, step: int) -> None:
        """Asks for the next window at once."""
        self._is_repeating = True
        self.next_step = step

    def spent(self, seconds: float) -> None:
        """A window took so long of the training thread, apart from the steps."""
        self._spent_seconds += seconds

    @property
    def _lead(self) -> int:
        return self._warmup_steps - self._num_ready_calls * self._steps_per_call


class ReadingWatch:
    """Notices that reads take another time than they did."""

    def __init__(self) -> None:
        self._num_reads = 0
        self._seconds = 0.0
        self._usual_seconds = 0.0

    def has_changed(self, num_reads: int, seconds: float) -> bool:
        """Compares the reads since the last call with those between the last two.

        Args:
            num_reads: Reads so far.
            seconds: How long they took, in total.

        Returns:
            Whether the mean read has become longer or shorter by `CHANGE`.
        """
        if num_reads <= self._num_reads:
            return False
        usual = self._usual_seconds
        self._usual_seconds = (seconds - self._seconds) / (num_reads - self._num_reads)
        self._num_reads, self._seconds = num_reads, seconds
        return usual > 0 and abs(self._usual_seconds / usual - 1) > CHANGE
