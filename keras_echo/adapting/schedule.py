"""When windows open, and what makes one urgent. Pure: no clock, no I/O, no Keras."""

from __future__ import annotations

import math
import operator
from typing import NamedTuple

BUDGET = 0.005
"""Share of the training time that windows may take."""

FEWEST_CALLS = 3
"""Calls of the train function below which a window isn't worth opening."""

URGENT_BUDGET = 0.05
"""The same for urgent windows, but for the first ones."""

CHANGE = 0.15
"""By what share the factor is wrong when R has changed."""

NUM_COLD = 3
"""Calls after a pause that are not counted: the first took 1.5 times as long on a CPU."""

NUM_READY = 5
"""Calls that tell what a step takes which never waits."""

_NUM_READY_CALLS = NUM_COLD + NUM_READY


class Calls(NamedTuple):
    """How many calls of the train function a window has, in their order.

    Attributes:
        ready_before: Without a wait and without the profiler; `NUM_COLD` more than count.
        traced: As they come, in the trace.
        ready_after: Like `ready_before`. A window has one or the other, or neither.
    """

    ready_before: int
    traced: int
    ready_after: int


class Schedule:
    """Decides before each call of the train function whether a window opens there.

    Windows lie within an epoch, since validation and whatever else happens between two epochs is
    no part of a step. The first window of a `fit()` opens after the warm-up. A later one is left
    out where windows have taken more than their share of the time (`BUDGET`), unless it is urgent.

    In the first window the calls without a wait come first: they belong to the warm-up, in which
    batches lie ready anyway. In later ones they follow the trace, which would otherwise show how
    the batches that had been collected for them are used up.

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
        self._warm_step = 0
        self.next_step = math.inf

    def begin_fit(self, step: int, steps_per_call: int) -> None:
        """A `fit()` begins, with so many optimizer steps in each call of the train function."""
        self._is_first = True
        self._is_repeating = False
        self._spent_seconds = 0.0
        self._steps_per_call = steps_per_call
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
            room = num_steps - self._ready_steps - self._profile_steps - self._steps_per_call
            self.next_step = step + min(self._lead, max(0, room))

    def begin_window(self, step: int, seconds: float, is_urgent: bool) -> Calls | None:
        """Begins a window now, or decides against it.

        Args:
            step: Optimizer steps so far.
            seconds: How long `fit()` has run.
            is_urgent: Whether something has changed.

        Returns:
            The calls that it is to have; None for no window.
        """
        wanted = max(FEWEST_CALLS, math.ceil(self._profile_steps / self._steps_per_call))
        # One call more must follow in the epoch: where it begins is where the window's last ends.
        left = (self._epoch_end - step - 1) / self._steps_per_call
        possible = int(min(wanted + _NUM_READY_CALLS, left))
        if possible < FEWEST_CALLS:
            self.next_step = self._epoch_end
            return None
        num_ready = _NUM_READY_CALLS if possible >= _NUM_READY_CALLS + FEWEST_CALLS else 0
        is_warming_up = step < self._warm_step
        if is_warming_up and not num_ready:
            self.next_step = self._warm_step
            return None
        self.next_step = max(step, self._warm_step) + (self._profile_freq or math.inf)
        budget_seconds = (URGENT_BUDGET if is_urgent else BUDGET) * seconds
        is_owed = self._is_first or self._is_repeating
        if not is_owed and self._spent_seconds > budget_seconds:
            return None
        num_after = 0 if self._is_first else num_ready
        self._is_first = self._is_repeating = False
        if is_warming_up:
            return Calls(num_ready, min(wanted, possible - num_ready), 0)
        return Calls(0, min(wanted, possible - num_after), num_after)

    def repeat(self, step: int) -> None:
        """Asks for the next window at once."""
        self._is_repeating = True
        self.next_step = step

    def spent(self, seconds: float) -> None:
        """Notes how long a window kept the training thread from its steps."""
        self._spent_seconds += seconds

    @property
    def _ready_steps(self) -> int:
        return _NUM_READY_CALLS * self._steps_per_call

    @property
    def _lead(self) -> int:
        """Steps before a window: the warm-up, of which those without a wait may be the end."""
        is_overlapping = self._is_first and self._warmup_steps >= self._ready_steps
        return self._warmup_steps - (self._ready_steps if is_overlapping else 0)


class Look(NamedTuple):
    """What was counted until some moment.

    Attributes:
        steps: Optimizer steps.
        fresh_batches: Fresh batches that they used.
        seconds: Wall-clock time.
        wait_seconds: Of it, what training waited.
        held_seconds: Of it, what readers had nothing to do.
    """

    steps: int
    fresh_batches: int
    seconds: float
    wait_seconds: float
    held_seconds: float


class Balance:
    """Notices that the factor isn't what each batch was used, or that one side rests.

    Where training waits or uses what it has once more, the factor is too low. Where readers rest or
    batches make room before they were used so often, it is too high.
    """

    def __init__(self) -> None:
        self._last: Look | None = None
        self._usual_share = self._last_change = 0.0

    def has_changed(self, look: Look, factor: float, *, is_least: bool, is_most: bool) -> bool:
        """Compares with the last two looks.

        Args:
            look: What was counted until now.
            factor: The factor.
            is_least: Whether the factor is as low as it may be.
            is_most: Whether it is as high as it may be.

        Returns:
            Whether between them, and since the last one, the factor was too low by more than
            `CHANGE`, or too high. It isn't twice in a row: where a new factor didn't help, none
            will.
        """
        last, self._last = self._last, look
        if last is None:
            return False
        since = Look(*map(operator.sub, look, last))
        too_low, too_high = _faults(since, factor)
        share = (0.0 if is_most else too_low) - (0.0 if is_least else too_high)
        if abs(share) <= CHANGE:
            self._usual_share = self._last_change = 0.0
            return False
        change, before = share - self._usual_share, self._last_change
        self._last_change = change
        has_changed = min(abs(change), abs(before)) > CHANGE and change * before > 0
        if has_changed:
            self._usual_share = share
        return has_changed


def _faults(look: Look, factor: float) -> tuple[float, float]:
    """By what share the factor was too low, and too high."""
    if not (look.fresh_batches > 0 and look.seconds > 0):
        return 0.0, 0.0
    change = look.steps / look.fresh_batches / factor - 1.0
    return (
        max(change, look.wait_seconds / look.seconds),
        max(-change, look.held_seconds / look.seconds),
    )
