"""What was measured -> the echoing factor and the reason for it. Pure: no clock, no I/O, no Keras.

The factor follows R (arXiv 1907.05550, section 4: up to e = R the extra steps are free):

- R is the median of the last three windows, so that one window that was disturbed changes nothing,
  and two that agree do. Before there are three it is the latest: a window sees the more of a step
  the less training starves in it.
- A change of less than `DEAD_BAND` isn't made: windows differ by that much on a machine that does
  nothing else.
- After a change, or a window that disagrees, the next window follows at once.
- Where a window only tells a bound, the factor goes to a lower bound above it at once. Where R is
  at most the factor, and by how much less cannot be seen, a little less is tried.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from keras_echo.profiling.breakdown import STARVED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keras_echo.profiling.result import StepBreakdown

DEAD_BAND = 0.05
"""Relative change of the factor below which it stays as it is."""

DISAGREEMENT = 0.25
"""Relative difference from R at which a window disagrees with those before."""

NUM_WINDOWS = 3
"""Windows whose median is R."""

BACK_OFF = 0.9
"""What the factor is multiplied by where R is below it, but not known."""


@dataclass(frozen=True)
class EchoDecision:
    """What was decided after a window.

    Attributes:
        step: Optimizer steps done when it was decided.
        breakdown: What was measured.
        factor: The echoing factor from here on.
        previous_factor: The echoing factor until here.
        reason: Why, in words.
    """

    step: int
    breakdown: StepBreakdown
    factor: float
    previous_factor: float
    reason: str


class Choice(NamedTuple):
    """What `decide` chooses.

    Attributes:
        factor: The echoing factor from here on.
        reason: Why, in words.
        is_certain: False if the next window should follow at once: the factor has moved, and a
            window sees the more of a step the less training starves in it; or the latest window
            disagrees with those before.
    """

    factor: float
    reason: str
    is_certain: bool


def decide(
    breakdowns: Sequence[StepBreakdown],
    factor: float,
    *,
    min_factor: float,
    max_factor: float,
) -> Choice:
    """Chooses the factor after a window.

    Args:
        breakdowns: The measurements so far, the latest last.
        factor: The factor now.
        min_factor: The least that is chosen.
        max_factor: The most.

    Returns:
        The factor from here on, and the reason.
    """
    latest = breakdowns[-1]
    ratio = latest.ratio
    if not math.isfinite(ratio):
        missing = "; ".join(latest.missing) or "no step was seen"
        return Choice(factor, f"R is unknown: {missing}", is_certain=True)
    if latest.bound == "upper":
        seen = f"R is at most {ratio:.2f}"
        if not latest.starved_fraction < STARVED or factor <= min_factor:
            return Choice(factor, seen, is_certain=True)
        ratio = min(ratio, BACK_OFF * factor)
    elif latest.bound == "lower":
        seen = f"R is at least {ratio:.2f}"
        ratio = max(ratio, factor)
    else:
        last = breakdowns[-NUM_WINDOWS:]
        exact = [b.ratio for b in last if b.bound == "exact" and math.isfinite(b.ratio)]
        ratio = statistics.median(exact) if len(exact) == NUM_WINDOWS else ratio
        seen = f"R = {ratio:.2f}"
    wanted, latest_wanted = (min(max(r, min_factor), max_factor) for r in (ratio, latest.ratio))
    agrees = abs(latest_wanted / wanted - 1) < DISAGREEMENT
    if ratio > max_factor:
        waiting = 1 - max_factor / ratio
        seen += f", above max_factor {max_factor:g}: training waits {waiting:.0%} of the time"
    if wanted == factor or (abs(wanted / factor - 1) < DEAD_BAND and wanted > min_factor):
        return Choice(factor, seen, is_certain=agrees)
    return Choice(round(wanted, 2), seen, is_certain=latest.bound == "upper")
