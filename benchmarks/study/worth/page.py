"""The page on worth, made from its rows and answers alone."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from keras_echo.adapting.worth import SURE
from keras_echo.adapting.worth_window import NUM_UNSEEN
from study.findings import answer
from study.page import answer_cell
from study.plan import AUTO, METHOD_NAMES, NO_ECHO, SEEDS, TASKS, Setting
from study.worth.findings import (
    OF_THE_DEFAULT,
    Correlations,
    Verdict,
    correlations_by_factor,
    verdict_on_following,
)
from study.worth.plan import (
    BUFFER_FACTOR,
    BUFFERS,
    CORRELATION,
    FACTORS,
    FOLLOW_BUDGET,
    FOLLOW_CLOSE,
    FOLLOW_MOST,
    FOLLOW_SHARE,
    LARGE_FACTOR,
    RATIOS,
    methods,
)
from study.worth.summary import is_asked, predictions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from study.worth.summary import Row, Rows

TEXT = Path(__file__).parent / "introduction.md"


def page(rows: Rows, num_runs: int) -> str:
    """The whole page.

    Args:
        rows: By their settings.
        num_runs: How many runs are finished.
    """
    introduction = Template(TEXT.read_text()).substitute(
        num_runs=f"{num_runs:,}",
        seeds=f"{SEEDS[0]} to {SEEDS[-1]}",
        num_seeds=len(SEEDS),
        num_unseen=NUM_UNSEEN,
        budget=f"{FOLLOW_BUDGET:.0%}".replace("%", " %"),
    )
    sections = {
        "Does worth predict?": _prediction(rows),
        "Is the default right?": _default(rows),
        "Does following worth find the right factor?": _following(rows),
        "How many batches to mix": _buffers(rows),
        f"Up to {LARGE_FACTOR} uses": _large(rows),
        "What each use is worth": _uses(rows),
    }
    parts = [introduction.strip()]
    parts += [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]], *, num_names: int = 2) -> str:
    marks = ["---"] * num_names + ["---:"] * (len(head) - num_names)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, marks, *lines))


def _sizes() -> list[Setting]:
    """Each workload and batch size, as its setting without echoing."""
    return [
        Setting(task.name, size.batch_size, NO_ECHO, 1)
        for task in TASKS.values()
        for size in task.sizes
    ]


def _names(setting: Setting) -> list[str]:
    return [setting.task, str(setting.batch_size)]


def _number(value: float, digits: int = 2) -> str:
    return f"{value:,.{digits}f}" if math.isfinite(value) else "—"


def _ratio(value: float, other: float) -> str:
    return _number(value / other) if math.isfinite(value) and math.isfinite(other) else "—"


def _prediction(rows: Rows) -> str:
    found = correlations_by_factor(predictions(rows))
    by_factor = [found[name] for name in found if name != "all"]
    if not by_factor:
        return ""
    num_asked = sum(is_asked(setting) for setting in rows)
    num_left_out = num_asked - found["all"].num
    num = sum(correlation.predicts for correlation in by_factor)
    predicts = num == len(FACTORS)
    verdict = (
        f"**{'Yes' if predicts else 'No'}**, by the rule that was fixed before: the worth of the "
        "last use over that of the first has a rank correlation with the data saved of at least "
        f"{CORRELATION:g} over the settings of {num} of {len(FACTORS)} factors, and the rule asks "
        "for all."
    )

    def cells(name: str, correlation: Correlations) -> list[str]:
        values = correlation.last, correlation.average, correlation.total
        return [name, str(correlation.num), *(_number(value) for value in values)]

    table = _table(
        ["settings", "how many", "last use", "mean of the uses", "sum of the uses"],
        [cells(name, correlation) for name, correlation in found.items()],
        num_names=1,
    )
    return (
        f"{verdict}\n\n{table}\n\nRank correlations (Spearman) of the data saved with the worth of "
        "the last use, of all uses on average, and of all together, each over the worth of the "
        f"first use. Of {num_asked} settings {num_left_out} are left out: the worth of their uses "
        "isn't known, or their first use isn't surely worth something.\n\n"
        "![Worth of the last use, and data saved](worth/prediction.png)"
    )


def _default(rows: Rows) -> str:
    findings = _table(
        ["claim", "compared", "answer"],
        [[each.statement, each.rule, answer_cell(answer(each, rows))] for each in OF_THE_DEFAULT],
        num_names=3,
    )
    parts = [findings]
    for ratio in RATIOS:
        factors = [1, *FACTORS]
        lines = []
        for one in _sizes():
            settings = [one, *(one._replace(method=AUTO, factor=factor) for factor in FACTORS)]
            if rows.keys() >= set(settings):
                times = [rows[setting].times[ratio].median for setting in settings]
                lines.append([*_names(one), *(_number(time, 0) for time in times)])
        if lines:
            parts += [
                f"### Time to the target at R = {ratio}",
                _table(["workload", "batch size", *(f"e = {e}" for e in factors)], lines),
            ]
    return "\n\n".join(parts)


def _following(rows: Rows) -> str:
    verdict = verdict_on_following(rows)
    if verdict.default is None:
        return ""
    lines = [
        [
            *_names(case.setting),
            str(case.setting.factor),
            str(case.best),
            _number(case.ratio),
            _number(rows[case.setting].last_factor.median),
        ]
        for case in verdict.cases
    ]
    return (
        f"{_said(verdict)}\n\n"
        + _table(
            ["workload", "batch size", "R", "best e", "time over that of best e", "last factor"],
            lines,
        )
        + '\n\nThe best fixed factor of 1, 2, 4, 8 is known in hindsight alone. `"follow"` begins '
        f"with a factor of R, and never goes above it. {_why(verdict, rows)}"
    )


def _why(verdict: Verdict, rows: Rows) -> str:
    """What following lacked."""
    cases = verdict.cases
    num_stayed = sum(rows[case.setting].last_factor.least == case.setting.factor for case in cases)
    far = [case for case in cases if case.ratio > FOLLOW_CLOSE]
    num_above = sum(case.best > case.setting.factor for case in far)
    return (
        f"In {num_stayed} of {len(cases)} cases no run ever left R: these trainings reach their "
        f"targets before {FOLLOW_BUDGET:.0%} of the time has told anything. In {num_above} of the "
        f"{len(far)} cases that took longer, the best factor is above R, where steps cost time and "
        "pay all the same."
    ).replace("%", " %")


def _said(verdict: Verdict) -> str:
    num = len(verdict.cases)
    greatest = max(case.ratio for case in verdict.cases)
    at_most = (
        f"{greatest:.2f} times at most"
        if math.isfinite(greatest)
        else "in some it never reached a target that a fixed factor reached"
    )
    return (
        f"In {verdict.num_close} of {num} cases following worth took at most {FOLLOW_CLOSE:g} "
        f"times the time of the best fixed factor, and {at_most}. The rule "
        f"that was fixed before asks for {FOLLOW_SHARE:.0%} of the cases and at most "
        f'{FOLLOW_MOST:g} in all: so **`worth="{verdict.default}"`** is the default.'
    ).replace("%", " %")


def _buffers(rows: Rows) -> str:
    kinds = {f"{held} batches": method for held, method in BUFFERS.items()} | {"default": AUTO}
    lines = []
    columns: dict[str, list[float]] = {name: [] for name in kinds}
    for one in _sizes():
        settings = [one._replace(method=method, factor=BUFFER_FACTOR) for method in kinds.values()]
        if not rows.keys() >= {one, *settings}:
            continue
        base = rows[one].fresh.median
        fresh = [rows[setting].fresh.median for setting in settings]
        lines.append([*_names(one), *(_ratio(value, base) for value in fresh)])
        for column, value in zip(columns.values(), fresh, strict=True):
            column.append(value / base if math.isfinite(base) else math.inf)
    if not lines:
        return ""
    medians = [_number(statistics.median(column)) for column in columns.values()]
    lines.append(["**median**", "", *medians])
    return (
        f"Fresh examples to the target over those of e = 1, at e = {BUFFER_FACTOR}, by what the "
        "shuffle buffer holds.\n\n" + _table(["workload", "batch size", *kinds], lines)
    )


def _large(rows: Rows) -> str:
    factors = [*FACTORS, LARGE_FACTOR]
    lines = []
    for one in _sizes():
        settings = [one._replace(method=AUTO, factor=factor) for factor in factors]
        if rows.keys() >= {one, *settings}:
            base = rows[one].fresh.median
            ratios = [_ratio(rows[setting].fresh.median, base) for setting in settings]
            lines.append([*_names(one), *ratios])
    if not lines:
        return ""
    return (
        "Fresh examples to the target over those of e = 1, with the default's shuffle buffer.\n\n"
        + _table(["workload", "batch size", *(f"e = {factor}" for factor in factors)], lines)
    )


def _uses(rows: Rows) -> str:
    head = ["workload", "batch size", "echoing", "e", "reached", "fresh / e = 1"]
    lines = []
    for one in _sizes():
        for method in methods(one.task):
            for factor in FACTORS:
                setting = one._replace(method=method, factor=factor)
                if rows.keys() >= {one, setting}:
                    row = rows[setting]
                    lines.append(
                        [
                            *_names(setting),
                            METHOD_NAMES[method],
                            str(factor),
                            f"{row.num_reached} of {len(SEEDS)}",
                            _ratio(row.fresh.median, rows[one].fresh.median),
                            *(_use(row, use) for use in range(2, max(FACTORS) + 1)),
                        ]
                    )
    if not lines:
        return ""
    uses = [f"use {use}" for use in range(2, max(FACTORS) + 1)]
    return (
        "The worth of each use over that of the first, with its standard error. Where the first "
        f"use isn't surely worth something (by {SURE:g} standard errors), no ratio is shown. "
        "A batch of example echoing mixes uses, and they can't be told apart.\n\n"
        + _table([*head, *uses], lines, num_names=3)
    )


def _use(row: Row, use: int) -> str:
    ratio = row.worth.relative().get(use)
    return f"{ratio.mean:.2f} ± {ratio.standard_error:.2f}" if ratio else ""
