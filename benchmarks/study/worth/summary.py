"""From all runs to one row for each setting: medians and ranges, and what uses are worth.

As in `study.summary`, a run that never reached its target counts as infinite.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_echo.adapting.worth import Estimate, Estimates, Worth
from study.measures import measured
from study.plan import AUTO, FOLLOW, SEEDS, Run, Setting
from study.summary import Spread, finite, spread, unechoed
from study.worth.measures import time_to_target
from study.worth.plan import FACTORS, RATIOS, settings

if TYPE_CHECKING:
    from study.journal import Record


class Row(NamedTuple):
    """A setting's runs of all seeds.

    Attributes:
        setting: The setting.
        num_reached: How many runs reached the target.
        fresh: Fresh examples until then.
        times: The time until then in t_upstream, by R.
        worth: What each use is worth, by its number, from the measured steps of all seeds.
        last_factor: The factor at the end.
    """

    setting: Setting
    num_reached: int
    fresh: Spread
    times: dict[int, Spread]
    worth: Estimates
    last_factor: Spread


Rows = dict[Setting, Row]


def summarise(records: dict[Run, Record], tasks: list[str]) -> Rows:
    """The rows of all settings whose runs are finished for every seed."""
    rows = {}
    for setting in settings(tasks):
        runs = [Run(setting, setting.size.learning_rate, seed) for seed in SEEDS]
        if not records.keys() >= set(runs):
            continue
        found = [records[run] for run in runs]
        fresh = [measured(record).fresh_to_target for record in found]
        ratios = [setting.factor] if setting.method == FOLLOW else RATIOS
        rows[setting] = Row(
            setting,
            sum(value is not None for value in fresh),
            spread(fresh),
            {
                ratio: spread([time_to_target(record, ratio) for record in found])
                for ratio in ratios
            },
            _worth(found),
            spread([record["factors"][-1] for record in found]),
        )
    return rows


def _worth(records: list[Record]) -> Estimates:
    worth = Worth(most_samples=None)
    for record in records:
        for uses, decreases in record["windows"]:
            worth.add(uses, decreases)
    return worth.estimates()


class Prediction(NamedTuple):
    """What worth says of a setting, and what came.

    Attributes:
        setting: The setting.
        last: The worth of the last use over that of the first.
        average: The mean worth of all uses, over that of the first.
        total: The sum: how many first uses all uses of a batch are worth.
        saved: Fresh examples at e = 1 over those here, medians; 0 where it never got there.
    """

    setting: Setting
    last: Estimate
    average: float
    total: float
    saved: float


def is_asked(setting: Setting) -> bool:
    """Whether worth is to predict what a setting saves."""
    return setting.method in ("batch", AUTO) and setting.factor in FACTORS


def predictions(rows: Rows) -> list[Prediction]:
    """Of all settings whose uses' worth is known, and whose first use is surely worth something."""
    found = []
    for setting, row in rows.items():
        base = rows.get(unechoed(setting))
        if not is_asked(setting) or base is None or math.isinf(base.fresh.median):
            continue
        shares = row.worth.relative()
        known = [shares[use] for use in range(1, setting.factor + 1) if use in shares]
        if len(known) < setting.factor:
            continue
        total = sum(use.mean for use in known)
        found.append(
            Prediction(
                setting,
                known[-1],
                total / setting.factor,
                total,
                base.fresh.median / row.fresh.median,
            )
        )
    return found


def as_json(rows: Rows) -> list[dict[str, Any]]:
    """Rows as JSON; what is infinite becomes null."""
    return [
        {
            **row.setting._asdict(),
            "num_reached": row.num_reached,
            "fresh_to_target": finite(row.fresh),
            "time_to_target": {str(ratio): finite(time) for ratio, time in row.times.items()},
            "worth": {str(use): value._asdict() for use, value in row.worth.items()},
            "last_factor": finite(row.last_factor),
        }
        for row in rows.values()
    ]


def prediction_as_json(each: Prediction) -> dict[str, Any]:
    """A prediction as JSON."""
    return {**each._asdict(), "setting": each.setting._asdict(), "last": each.last._asdict()}
