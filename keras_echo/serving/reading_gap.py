"""Whether reading has a gap: training waits, and no fresh batch lies ready.

In a gap, an echo may use once more what was used already, up to `EchoFactor.max_uses` times. That
is the fast one of two loops: it never idles. The slow one, `keras_echo.adapting`, spreads the uses
evenly.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.factor import EchoFactor

PATIENCE = 4.0
"""Steps for which a fresh batch is waited for at factor 1. A training that isn't input-bound then
sees each batch once, though now and then a read takes longer."""

_OUTAGE_SECONDS = 5.0
_SLICE_SECONDS = 0.005  # in which uses made ahead of training notice that it waits


class Results(Protocol):
    """What is made ahead of somebody: the fresh batches, or the uses made of them."""

    def await_next(self, timeout_seconds: float) -> bool:
        """Waits until the next result lies ready; returns whether it does."""

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a result."""


class ReadingGap:
    """The gaps of a pipeline; see `keras_echo.echoing.repetition.Gap`.

    Args:
        factor: The echoing factor, with its `max_uses`.
        fresh: The fresh batches, read ahead.
        step_seconds: Returns what a step takes that doesn't wait; NaN while that is unknown.
        clock: Seconds.

    Attributes:
        uses: The uses made ahead of training; None where they are made when training asks.
        is_training: Whether somebody trains on what is asked for; a peek waits instead.
    """

    def __init__(
        self,
        factor: EchoFactor,
        fresh: Results,
        step_seconds: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._factor = factor
        self._fresh = fresh
        self._step_seconds = step_seconds
        self._clock = clock
        self._began: float | None = None  # when the gap that is open began
        self._is_outage = False
        self.uses: Results | None = None
        self.is_training = True

    @property
    def max_uses(self) -> float | None:
        """See `Gap`."""
        return self._factor.max_uses

    def is_open(self) -> bool:
        """See `Gap`. Returns as soon as a fresh batch lies ready, or training waits in vain."""
        if not self.is_training:
            return False
        began = self._clock()
        while True:
            seconds = self._patience() - (self._clock() - began)
            if self.uses is not None:
                seconds = min(max(seconds, _SLICE_SECONDS), _SLICE_SECONDS)
            if self._fresh.await_next(max(0.0, seconds)):
                self._end()
                return False
            if self.uses is not None and not self.uses.is_awaited:
                began = self._clock()  # training doesn't wait yet
            elif self._clock() - began >= self._patience():
                self._begin(began)
                return True

    def _patience(self) -> float:
        if self._factor.value > 1 or self._began is not None:
            return 0.0
        seconds = self._step_seconds()
        return PATIENCE * seconds if seconds >= 0 else float("inf")

    def _begin(self, began: float) -> None:
        if self._began is None:
            self._began = began
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
