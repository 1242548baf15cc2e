"""What was measured -> the echoing factor and the reason for it. Pure: no clock, no I/O, no Keras.

The factor follows R (arXiv 1907.05550, section 4: up to e = R the extra steps are free):

- R is the median of the last windows, of those since R has changed: one window that was disturbed
  changes little. R has changed where two windows in a row disagree with it in the same direction.
- The next window follows at once after the first one, which may have seen a training that starves,
  and after one that disagrees. Windows go on in their turn until there are `NUM_SETTLED` of them.
- The factor stays where it would change by less than `DEAD_BAND`: windows differ by more on a
  machine that does nothing else.
- Where a window only tells a lower bound, the factor goes up to it at once. Where R is less than
  the factor, and by how much can't be seen, less is tried until it can.

How near to R it may go depends on what happens where it is too low (`Policy`).
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from keras_echo.profiling.measuring.result import STARVED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keras_echo.profiling.measuring.result import StepBreakdown

DEAD_BAND = 0.03
"""Relative change of the factor below which it stays as it is."""

DISAGREEMENT = 0.25
"""Relative difference from R at which a window disagrees with those before."""

NUM_WINDOWS = 9
"""Windows whose median is R."""

NUM_SETTLED = 5
"""Windows since R has changed from which on R is known well enough."""

HELD = 0.05
"""Share of the time from which on readers that are held say that the factor is too high."""


class Policy(NamedTuple):
    """Where the factor is to be, seen from R.

    Attributes:
        aim: The factor over R, where training is input-bound.
        back_off: What the factor is multiplied by where R is below it, but not known.
    """

    aim: float
    back_off: float


BRIDGING = Policy(aim=0.97, back_off=0.5)
"""Where a batch is used once more while no fresh one is there (`max_uses`), a factor that is too
low costs nothing. A little below R, readers are never held, so fresh batches come as fast as they
can, and what reading costs can always be seen."""

WAITING = Policy(aim=1.02, back_off=0.9)
"""Where training waits instead. Reading and training both vary, and at e = R each waits for the
other half of the time: what is too little costs steps, what is too much fresh batches."""


@dataclass(frozen=True)
class EchoDecision:
    """What was decided after a window.

    Attributes:
        step: Optimizer steps done when it was decided.
        breakdown: What was measured.
        factor: The echoing factor from here on.
        previous_factor: The echoing factor until here.
        reason: Why, in words.
        ratio: R as the decision sees it: the median of the windows since R has changed, while
            `breakdown.ratio` is this window's own. Where that is only a bound, the bound; NaN
            where it is unknown.
    """

    step: int
    breakdown: StepBreakdown
    factor: float
    previous_factor: float
    reason: str
    ratio: float


class NextWindow(Enum):
    """When the next window is to open."""

    AT_ONCE = auto()
    IN_TURN = auto()
    IF_CHEAP = auto()


class Choice(NamedTuple):
    """What `decide` chooses.

    Attributes:
        factor: The echoing factor from here on.
        ratio: The R that it rests on; see `EchoDecision`.
        reason: Why, in words.
        next_window: When the next window is to open: whether it is worth its time.
    """

    factor: float
    ratio: float
    reason: str
    next_window: NextWindow


def decide(
    breakdowns: Sequence[StepBreakdown],
    factor: float,
    *,
    min_factor: float,
    max_factor: float,
    policy: Policy = BRIDGING,
    limited_by: str = "max_factor",
) -> Choice:
    """Chooses the factor after a window.

    Args:
        breakdowns: The measurements so far, the latest last.
        factor: The factor now.
        min_factor: The least that is chosen.
        max_factor: The most.
        policy: Where it is to be, seen from R.
        limited_by: What `max_factor` is called.

    Returns:
        The factor from here on, what it rests on, and the reason.
    """
    latest = breakdowns[-1]
    ratio = known_ratio = latest.ratio
    if not math.isfinite(ratio):
        missing = "; ".join(latest.missing) or "no step was seen"
        return Choice(factor, math.nan, f"R is unknown: {missing}", NextWindow.IF_CHEAP)
    known = [b.ratio for b in breakdowns if b.bound == "exact" and math.isfinite(b.ratio)]
    since_change = _since_change(known)

    def limited(factor: float) -> float:
        return min(max(factor, min_factor), max_factor)

    def aim_at(ratio: float) -> float:
        return ratio * policy.aim if 1 < ratio <= max_factor else ratio

    next_window = NextWindow.IN_TURN
    if latest.bound == "upper":
        seen = f"R is at most {ratio:.2f}"
        if not latest.starved_fraction < STARVED or factor <= min_factor:
            return Choice(factor, ratio, seen, NextWindow.IF_CHEAP)
        wanted = min(ratio, policy.back_off * factor)
    elif latest.bound == "lower":
        seen = f"R is at least {ratio:.2f}"
        wanted = max(aim_at(ratio), factor)
        if latest.held_fraction > HELD and wanted == factor > min_factor:
            seen += f" and less than {factor:g}, since readers had nothing to do"
            wanted = max(aim_at(ratio), policy.back_off * factor)
            if wanted < (1 - DEAD_BAND) * factor:
                next_window = NextWindow.AT_ONCE  # until R can be seen
    else:
        ratio = known_ratio = statistics.median(since_change)
        seen = f"R = {ratio:.2f}"
        if f"{latest.ratio:.2f}" != f"{ratio:.2f}":
            seen += f" ({latest.ratio:.2f} in this window)"
        wanted = aim_at(ratio)
        if _disagrees(limited(latest.ratio), limited(ratio)):
            next_window = NextWindow.AT_ONCE
    wanted = limited(wanted)
    if ratio > max_factor:
        seen += f", above {limited_by} {max_factor:g}{_waits(latest, ratio, factor, max_factor)}"
    if abs(wanted / factor - 1) < DEAD_BAND and wanted > min_factor:
        wanted = factor
    if len(breakdowns) == 1 and wanted != factor:
        next_window = NextWindow.AT_ONCE
    is_known = latest.bound == "exact" or wanted in (min_factor, max_factor)
    is_settled = is_known and (wanted == factor or len(since_change) >= NUM_SETTLED)
    if next_window is NextWindow.IN_TURN and is_settled:
        next_window = NextWindow.IF_CHEAP
    after = wanted if wanted == factor else round(wanted, 2)
    return Choice(after, known_ratio, seen, next_window)


def _waits(latest: StepBreakdown, ratio: float, factor: float, max_factor: float) -> str:
    """What training waits at the factor in force, as measured, and at the cap, as R says."""
    waits = []
    if math.isfinite(latest.wait_fraction):
        waits.append(f"training waited {latest.wait_fraction:.0%} of the time at {factor:g}")
    if factor != max_factor:
        least = "at least " if latest.bound == "lower" else ""
        waits.append(f"at {max_factor:g} it waits {least}{1 - max_factor / ratio:.0%}")
    return f": {', '.join(waits)}" if waits else ""


def _since_change(ratios: Sequence[float]) -> list[float]:
    """The last measurements of R, of those since it has changed."""
    kept: list[float] = []
    for ratio in ratios:
        kept.append(ratio)
        usual = statistics.median(kept[:-2] or kept)
        if _above(min(kept[-2:]), usual) or _above(usual, max(kept[-2:])):
            kept = kept[-2:]
    return kept[-NUM_WINDOWS:]


def _above(ratio: float, other: float) -> bool:
    return ratio > (1 + DISAGREEMENT) * other


def _disagrees(ratio: float, other: float) -> bool:
    return _above(ratio, other) or _above(other, ratio)
