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


class Reached(NamedTuple):
    """Where a run reached its target.

    Attributes:
        interval: Between which evaluations, counted from 0: the first one ends with the first.
        part: Behind which part of that interval.
    """

    interval: int
    part: float

    def on_the_way(self, at_evaluations: list[float]) -> float:
        """What had come together when the target was reached, of what grows from 0."""
        before = at_evaluations[self.interval - 1] if self.interval else 0
        return before + self.part * (at_evaluations[self.interval] - before)


def reached(record: Record) -> Reached | None:
    """Where the target was reached; None: it never was.

    That is at the first of two evaluations in a row that are at it or better: one alone may be
    luck, of which frequent evaluations have more. Where exactly between that one and the evaluation
    before, is taken from the straight line between the two.
    """
    task, quality = TASKS[record["task"]], record["quality"]
    good = [task.is_good(value, task.target) for value in quality]
    at = next((at for at in range(len(good) - 1) if good[at] and good[at + 1]), None)
    if not at:
        return None if at is None else Reached(0, 1.0)
    return Reached(at, (task.target - quality[at - 1]) / (quality[at] - quality[at - 1]))


def measured(record: Record) -> Measures:
    """Reads a record."""
    setting = run_of(record).setting
    quality, fresh = record["quality"], record["fresh_batches"]
    between = setting.steps_between_evaluations
    fresh_to_target = steps_to_target = None
    if at := reached(record):
        steps_to_target = between * (at.interval + at.part)
        fresh_to_target = setting.batch_size * at.on_the_way(fresh)
    num_equal_fresh = sum(value <= setting.size.num_steps for value in fresh)
    num_equal_steps = setting.size.num_steps // between
    return Measures(
        fresh_to_target,
        steps_to_target,
        _mean_before(quality, num_equal_fresh),
        _mean_before(quality, num_equal_steps),
    )


def _mean_before(quality: list[float], num: int) -> float:
    return statistics.mean(quality[:num][-NUM_FINAL:])
