"""From all runs to one row for each setting and kind of learning rate: medians and ranges.

A run that never reached the target counts as one that would have needed infinitely many fresh
examples. So a median is finite if more than half of the runs reached it, and the range's upper end
is infinite if one didn't.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from study.measures import measured
from study.plan import NO_ECHO, SEEDS, TASKS, TUNING_SEEDS, Run, Setting, rates, settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from study.journal import Record

Kind = Literal["common", "tuned"]
KINDS: tuple[Kind, Kind] = ("common", "tuned")


class Spread(NamedTuple):
    """Several runs' value: its median and its range."""

    median: float
    least: float
    most: float


class Row(NamedTuple):
    """A setting's runs of all seeds, at one learning rate.

    Attributes:
        setting: The setting.
        learning_rate: The learning rate.
        num_reached: How many runs reached the target.
        fresh: Fresh examples until then.
        steps: Steps until then.
        equal_fresh: Quality at equal fresh examples.
        equal_steps: Quality at equal steps.
    """

    setting: Setting
    learning_rate: float
    num_reached: int
    fresh: Spread
    steps: Spread
    equal_fresh: Spread
    equal_steps: Spread


Rows = dict[Setting, Row]


def spread(values: Sequence[float | None]) -> Spread:
    """Median and range, with None as infinity."""
    known = [math.inf if value is None else value for value in values]
    return Spread(statistics.median(known), min(known), max(known))


def selected_rates(records: dict[Run, Record], tasks: list[str]) -> dict[Setting, float]:
    """Each setting's tuned learning rate, among those that the tuning's seeds are finished for.

    That is the one with which most of these seeds reach the target; among those, the one that
    reads fewest examples until then, on average; among those, the one with the best quality at
    equal fresh examples.
    """

    def badness(setting: Setting, rate: float) -> tuple[int, float, float]:
        found = [measured(records[Run(setting, rate, seed)]) for seed in TUNING_SEEDS]
        fresh = [run.fresh_to_target for run in found if run.fresh_to_target is not None]
        quality = statistics.mean(run.quality_at_equal_fresh for run in found)
        if not TASKS[setting.task].lower_is_better:
            quality = -quality
        return len(found) - len(fresh), sum(fresh), quality

    return {
        setting: min(rates(setting), key=lambda rate: badness(setting, rate))
        for setting in settings(tasks)
        if all(
            Run(setting, rate, seed) in records for rate in rates(setting) for seed in TUNING_SEEDS
        )
    }


def summarise(records: dict[Run, Record], tasks: list[str], kind: Kind) -> Rows:
    """The rows of all settings whose runs are finished for every seed."""
    selected = selected_rates(records, tasks)
    rows = {}
    for setting in settings(tasks):
        rate = setting.size.learning_rate if kind == "common" else selected.get(setting)
        if rate is None or any(Run(setting, rate, seed) not in records for seed in SEEDS):
            continue
        found = [measured(records[Run(setting, rate, seed)]) for seed in SEEDS]
        rows[setting] = Row(
            setting,
            rate,
            sum(run.fresh_to_target is not None for run in found),
            spread([run.fresh_to_target for run in found]),
            spread([run.steps_to_target for run in found]),
            spread([run.quality_at_equal_fresh for run in found]),
            spread([run.quality_at_equal_steps for run in found]),
        )
    return rows


def unechoed(setting: Setting) -> Setting:
    """The setting that another one is compared with: e = 1."""
    return setting._replace(method=NO_ECHO, factor=1)


def finite(value: Spread) -> dict[str, float | None]:
    """A spread as JSON; what is infinite becomes null."""
    return {
        name: value if math.isfinite(value) else None for name, value in value._asdict().items()
    }


def as_json(rows: Rows) -> list[dict[str, Any]]:
    """Rows as JSON; what is infinite becomes null."""
    return [
        {
            **row.setting._asdict(),
            "learning_rate": row.learning_rate,
            "num_reached": row.num_reached,
            "fresh_to_target": finite(row.fresh),
            "steps_to_target": finite(row.steps),
            "quality_at_equal_fresh": finite(row.equal_fresh),
            "quality_at_equal_steps": finite(row.equal_steps),
        }
        for row in rows.values()
    ]
