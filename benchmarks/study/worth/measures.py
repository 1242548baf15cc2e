"""How long a run would have taken, read off its record."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from study.journal import run_of
from study.measures import reached
from study.plan import FOLLOW

if TYPE_CHECKING:
    from study.journal import Record

MOST_AHEAD = 1.0
"""Fresh batches that reading may be ahead of training. Some must be: between two evaluations a
whole number is taken, which is now one too many and now one too few."""


def time_to_target(record: Record, ratio: float) -> float | None:
    """The time until the target was reached, in t_upstream; None: it never was.

    Reading and training go on at the same time, so the steps between two evaluations take as long
    as the slower of the two: a fresh batch takes 1, a step 1 / R. The factor may have changed on
    the way. Where worth was followed, measuring takes time of its own, none of which
    is hidden.

    Args:
        record: A run's.
        ratio: R, t_upstream over the time of a step.
    """
    at = reached(record)
    if at is None:
        return None
    setting = run_of(record).setting
    training = setting.steps_between_evaluations / ratio
    times, ahead = [0.0], 0.0
    for batches in _differences(record["fresh_batches"]):
        wait = max(0.0, batches - ahead - training)
        ahead = min(MOST_AHEAD, ahead + training + wait - batches)
        times.append(times[-1] + training + wait)
    if setting.method == FOLLOW:
        measuring = [steps / ratio for steps in record["measuring_steps"]]
        times[1:] = [a + b for a, b in zip(times[1:], measuring, strict=True)]
    return at.on_the_way(times[1:])


def _differences(values: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise([0, *values])]
