"""What is read off one run."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

from study.journal import run_of
from study.plan import TASKS

if TYPE_CHECKING:
    from study.journal import Record

NUM_FINAL = 3  # evaluations whose mean is the quality at a point: each alone is noisy


class Measures(NamedTuple):
    """What is read off one run.

    Attributes:
        fresh_to_target: Fresh examples read until the target was reached; None: it never was.
        steps_to_target: Steps taken until then.
        quality_at_equal_fresh: Mean of the last three evaluations before more than the F examples
            of e = 1 were read, so after about e * S0 steps.
        quality_at_equal_steps: Mean of the last three evaluations up to step S0.
    """

    fresh_to_target: float | None
    steps_to_target: float | None
    quality_at_equal_fresh: float
    quality_at_equal_steps: float


def measured(record: Record) -> Measures:
    """Reads a record.

    The target is reached at the first of two evaluations in a row that are at it or better: one
    alone may be luck, of which frequent evaluations have more. Where exactly between that one and
    the evaluation before, is taken from the straight line between the two.
    """
    setting = run_of(record).setting
    task, size = TASKS[setting.task], setting.size
    quality, fresh = record["quality"], record["fresh_batches"]
    between = setting.steps_between_evaluations
    good = [task.is_good(value, task.target) for value in quality]
    reached = next((at for at in range(len(good) - 1) if good[at] and good[at + 1]), None)
    fresh_to_target = steps_to_target = None
    if reached is not None:
        part = 1.0
        if reached > 0:
            rise = quality[reached] - quality[reached - 1]
            part = (task.target - quality[reached - 1]) / rise
        fresh_before = fresh[reached - 1] if reached else 0
        steps_to_target = between * (reached + part)
        fresh_to_target = setting.batch_size * (
            fresh_before + part * (fresh[reached] - fresh_before)
        )
    num_equal_fresh = sum(value <= size.num_steps for value in fresh)
    num_equal_steps = size.num_steps // between
    return Measures(
        fresh_to_target,
        steps_to_target,
        _mean_before(quality, num_equal_fresh),
        _mean_before(quality, num_equal_steps),
    )


def _mean_before(quality: list[float], num: int) -> float:
    return statistics.mean(quality[:num][-NUM_FINAL:])
