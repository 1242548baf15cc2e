"""When windows open. Pure: no clock, no I/O, no Keras."""

from __future__ import annotations

import math

BUDGET = 0.005
"""Share of the training time that windows may take while training doesn't starve."""

FEWEST_CALLS = 3
"""Calls of the train function below which a window isn't worth opening."""


class Schedule:
    """Decides before each call of the train function whether a window opens there.

    Windows lie within an epoch, since validation and whatever else happens between two epochs is
    no part of a step. The first window of a `fit()` opens after the warm-up. A later one is left
    out where windows have taken more than their share of the time (`BUDGET`), unless training
    starves: then they cost nothing, since it is the readers that training waits for.

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
        self._spent_seconds = 0.0
        self._epoch_end = math.inf
        self.next_step = math.inf

    def begin_fit(self, step: int) -> None:
        """A `fit()` begins."""
        self._is_first = True
        self._spent_seconds = 0.0
        self.next_step = step + self._warmup_steps

    def begin_epoch(self, step: int, num_steps: float) -> None:
        """An epoch begins.

        Args:
            step: Optimizer steps so far.
            num_steps: Optimizer steps of the epoch; infinity where nobody knows.
        """
        self._epoch_end = step + num_steps
        if step >= self.next_step or (self._profile_freq is None and not self._is_first):
            # Not at once: readers and device have only begun. But not so late that it's cut off.
            room = max(0, num_steps - self._profile_steps - 1)
            self.next_step = step + min(self._warmup_steps, room)

    def num_calls(self, step: int, steps_per_call: int, seconds: float, starving: bool) -> int:
        """Decides on a window that would open now.

        Args:
            step: Optimizer steps so far.
            steps_per_call: Optimizer steps in a call of the train function.
            seconds: How long `fit()` has run.
            starving: Whether training waits for batches.

        Returns:
            How many calls it is to have; 0 for no window.
        """
        wanted = max(FEWEST_CALLS, math.ceil(self._profile_steps / steps_per_call))
        # One call more must follow in the epoch: where it begins is where the window's last ends.
        possible = min(wanted, (self._epoch_end - step - 1) // steps_per_call)
        if possible < FEWEST_CALLS:
            self.next_step = self._epoch_end
            return 0
        self.next_step = math.inf if self._profile_freq is None else step + self._profile_freq
        if not (self._is_first or starving or self._spent_seconds <= BUDGET * seconds):
            return 0
        self._is_first = False
        return int(possible)

    def spent(self, seconds: float) -> None:
        """A window took so long of the training thread, apart from the steps."""
        self._spent_seconds += seconds
