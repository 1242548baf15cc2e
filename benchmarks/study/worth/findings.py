"""The plan's questions, asked of the rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from scipy.stats import spearmanr

from study.findings import Comparison, Finding, less, relative_fresh
from study.plan import AUTO, FOLLOW, Setting
from study.summary import unechoed
from study.worth.plan import (
    CORRELATION,
    FACTORS,
    FOLLOW_CLOSE,
    FOLLOW_MOST,
    FOLLOW_SHARE,
    MOST_FRESH,
    RATIOS,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from study.worth.summary import Prediction, Rows


def _saves(rows: Rows) -> Iterator[Comparison]:
    for setting in rows:
        if (setting.method, setting.factor) == (AUTO, 4) and setting.task != "detection":
            yield from relative_fresh(rows, setting, MOST_FRESH)


def _never_later(rows: Rows) -> Iterator[Comparison]:
    for setting, row in rows.items():
        base = rows.get(unechoed(setting))
        if setting.method == AUTO and setting.factor in RATIOS and base:
            ratio = setting.factor
            yield less(setting, row.times[ratio].median, base.times[ratio].median, or_equal=True)


OF_THE_DEFAULT = (
    Finding(
        f"The default at e = 4 needs at most {MOST_FRESH:g} of the fresh examples of e = 1.",
        "language models and image classifiers, both batch sizes",
        1.0,
        _saves,
    ),
    Finding(
        "The default with a factor of R never reaches a target later than e = 1 does.",
        "time at R = 4 and R = 8, all workloads and batch sizes",
        1.0,
        _never_later,
    ),
)


class Case(NamedTuple):
    """Following worth, against factors that stay.

    Attributes:
        setting: Which one was asked; its factor is R.
        best: The factor that took least time.
        ratio: The time with worth followed over that with the best factor.
    """

    setting: Setting
    best: int
    ratio: float


class Verdict(NamedTuple):
    """What the callback's default is to be.

    Attributes:
        default: "follow", "report", or None as long as nothing is known.
        num_close: How many cases are close enough to the best factor.
        cases: All of them that are decided.
    """

    default: str | None
    num_close: int
    cases: list[Case]


def verdict_on_following(rows: Rows) -> Verdict:
    """Asks the third question. Where nothing reached the target, nothing is decided."""
    cases = []
    for setting, row in rows.items():
        if setting.method != FOLLOW:
            continue
        ratio = setting.factor
        fixed = [unechoed(setting)]
        fixed += [setting._replace(method=AUTO, factor=factor) for factor in FACTORS]
        if not rows.keys() >= set(fixed):
            continue
        times = {other.factor: rows[other].times[ratio].median for other in fixed}
        best = min(times, key=times.__getitem__)
        followed = row.times[ratio].median
        if math.isfinite(min(times[best], followed)):
            cases.append(Case(setting, best, followed / times[best]))
    num_close = sum(case.ratio <= FOLLOW_CLOSE for case in cases)
    if not cases:
        return Verdict(None, 0, [])
    follows = num_close >= FOLLOW_SHARE * len(cases) and all(
        case.ratio <= FOLLOW_MOST for case in cases
    )
    return Verdict("follow" if follows else "report", num_close, cases)


def verdict_as_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON; a ratio that is infinite becomes null."""
    return {
        "default": verdict.default,
        "num_close": verdict.num_close,
        "cases": [
            {
                **case.setting._asdict(),
                "best_factor": case.best,
                "ratio": case.ratio if math.isfinite(case.ratio) else None,
            }
            for case in verdict.cases
        ],
    }


class Correlations(NamedTuple):
    """Rank correlations with the data saved.

    Attributes:
        num: Over how many settings.
        last: Of the last use's worth over the first use's.
        average: Of the mean worth.
        total: Of the sum.
    """

    num: int
    last: float
    average: float
    total: float

    @property
    def predicts(self) -> bool:
        """Whether the last use's worth predicts."""
        return self.last >= CORRELATION


def correlations(found: Sequence[Prediction]) -> Correlations | None:
    """Of all these settings; None for fewer than three."""
    if len(found) < 3:
        return None
    saved = [each.saved for each in found]

    def ranked(values: list[float]) -> float:
        return float(spearmanr(values, saved).statistic)

    return Correlations(
        len(found),
        ranked([each.last.mean for each in found]),
        ranked([each.average for each in found]),
        ranked([each.total for each in found]),
    )


def correlations_by_factor(found: Sequence[Prediction]) -> dict[str, Correlations]:
    """For each factor, by its name, and over all."""
    of = {f"e = {e}": [each for each in found if each.setting.factor == e] for e in FACTORS}
    of["all"] = list(found)
    return {name: made for name, some in of.items() if (made := correlations(some)) is not None}
