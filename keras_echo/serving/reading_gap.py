"""Whether reading has a gap, for which training waits, or is so far ahead that it has to wait.

In a gap, an echo may use once more what was used already, up to `EchoFactor.max_uses` times. Where
reading is far ahead, it may go on to the next batch after `EchoFactor.min_uses` uses. That is the
fast one of two loops: neither side idles. The slow one, `keras_echo.adapting`, spreads the uses
evenly.
"""

from __future__ import annotations

import math
import time
import warnings
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.factor import EchoFactor

PATIENCE = 4.0
"""Steps for which a fresh batch is waited for at factor 1. A training that isn't input-bound then
sees each batch once, though now and then a read takes longer."""

LITTLE_PATIENCE = 0.1
"""The same at higher factors. An extra use costs nothing then, but a fresh batch that is just
about to come is better."""

_MOST_PATIENCE_SECONDS = 0.002

_HICCUP_SECONDS = 0.02  # for which a busy machine may keep a reader from a batch that takes no time
_SLICE_SECONDS = 0.005  # in which it is noticed that training waits
_OUTAGE_SECONDS = 5.0


class Fresh(Protocol):
    """The fresh batches, read ahead."""

    def await_next(self, timeout_seconds: float) -> bool:
        """Waits until the next one lies ready; returns whether it does."""

    def has_ahead(self, num_results: int) -> bool:
        """Whether so many lie ready, as far as there is room for them."""

    def is_crowded(self) -> bool:
        """Whether readers soon have no room for what they read."""


class Training(Protocol):
    """Whoever the batches are for."""

    def waiting_seconds(self) -> float:
        """How long it has been waiting for a batch by now; 0 if it isn't."""

    def step_seconds(self) -> float:
        """What a step takes that doesn't wait; NaN while that is unknown."""


class ReadingGap:
    """The gaps of a pipeline; see `keras_echo.echoing.repetition.Gap`.

    Args:
        factor: The echoing factor, with its `max_uses`.
        fresh: The fresh batches.
        training: Who trains on them.
        clock: Seconds.

    Attributes:
        is_elastic: Whether an output may get more or less uses than the factor says; not in a peek,
            and not while it is measured what uses are worth.
        num_ahead: Fresh batches that are to lie ready beside the next one: above factor 1, it is a
            gap, too, where they don't.
        num_made: Uses that were made.
        num_wanted: Uses that training got, and the one that it waits for.
    """

    def __init__(
        self,
        factor: EchoFactor,
        fresh: Fresh,
        training: Training,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._factor = factor
        self._fresh = fresh
        self._training = training
        self._clock = clock
        self._began: float | None = None  # when the gap that is open began
        self._is_outage = False
        self.is_elastic = True
        self.num_ahead = 0
        self.num_made = self.num_wanted = 0

    @property
    def max_uses(self) -> float | None:
        """See `Gap`."""
        return self._factor.max_uses

    @property
    def min_uses(self) -> float | None:
        """See `Gap`."""
        return self._factor.min_uses

    def is_full(self) -> bool:
        """See `Gap`."""
        return self.is_elastic and self._fresh.is_crowded()

    def is_open(self) -> bool:
        """See `Gap`. Returns as soon as a fresh batch lies ready, or training waits in vain."""
        while self.is_elastic:
            # Uses are made ahead; training may wait, or have waited, for an earlier one.
            is_wanted = self.num_wanted > self.num_made
            waited = self._training.waiting_seconds() if is_wanted else 0.0
            left = max(0.0, self._patience_seconds() - waited) if waited > 0 else math.inf
            if self._fresh.await_next(min(left, _SLICE_SECONDS)):
                self._end()
                is_kept_ready = self.num_ahead > 0 and self._factor.value > 1
                return is_kept_ready and not self._fresh.has_ahead(self.num_ahead + 1)
            if left == 0:
                self._begin()
                return True
        return False

    def _patience_seconds(self) -> float:
        if self._began is not None:
            return 0.0
        step_seconds = self._training.step_seconds()
        if self._factor.value > 1:
            # In this order: an unknown step isn't less than anything.
            return min(_MOST_PATIENCE_SECONDS, LITTLE_PATIENCE * step_seconds)
        if math.isnan(step_seconds):
            return math.inf
        return max(PATIENCE * step_seconds, _HICCUP_SECONDS)

    def _begin(self) -> None:
        if self._began is None:
            self._began = self._clock() - self._training.waiting_seconds()
        if not self._is_outage and self._clock() - self._began > _OUTAGE_SECONDS:
            self._is_outage = True
            warnings.warn(
                f"The source has delivered no batch for {_OUTAGE_SECONDS:.0f} seconds. Training "
                f"goes on with what is there, up to max_uses={self.max_uses:g} times.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _end(self) -> None:
        if self._is_outage and self._began is not None:
            seconds = self._clock() - self._began
            warnings.warn(
                f"The source delivers batches again, after {seconds:.0f} seconds.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._began, self._is_outage = None, False
