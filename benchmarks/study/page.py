"""The study's page, made from its rows and answers."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from study.findings import OWN, PAPER, Answer, Finding, answer
from study.plan import (
    EXAMPLE_BUFFER_BATCHES,
    METHOD_NAMES,
    NUM_EVALUATIONS,
    SEEDS,
    SHUFFLE_BUFFER_BATCHES,
    TASKS,
    TUNING_GRID,
    TUNING_SEEDS,
    Task,
)
from study.summary import KINDS, Kind, Row, Rows, Spread, unechoed

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXTS = Path(__file__).parent
RULE = """\
A finding of the paper is confirmed here if at least three quarters of the comparisons hold, a claim
of our own, written down before the runs, if all do. Comparisons in which neither side reached the
target are left out; if these are more than half, the finding was not tested. Ratios are medians
over the comparisons: of fresh examples, the first named over the second."""


def page(rows: Mapping[Kind, Rows], num_runs: int) -> str:
    """The whole page.

    Args:
        rows: By the kind of learning rate.
        num_runs: How many runs are finished.
    """
    parts = [
        _head(num_runs),
        "## Findings",
        _findings(rows),
        (TEXTS / "remarks.md").read_text().strip(),
    ]
    for task in TASKS.values():
        if any(setting.task == task.name for kind in KINDS for setting in rows[kind]):
            parts += [f"## {task.title}", _task(task, rows)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _head(num_runs: int) -> str:
    text = Template((TEXTS / "introduction.md").read_text())
    return text.substitute(
        num_runs=f"{num_runs:,}",
        num_seeds=len(SEEDS),
        last_seed=SEEDS[-1],
        num_evaluations=NUM_EVALUATIONS,
        grid=", ".join(f"{scale:g}" for scale in TUNING_GRID),
        tuning_seeds=" and ".join(map(str, TUNING_SEEDS)),
        shuffle_buffer=SHUFFLE_BUFFER_BATCHES,
        example_buffer=EXAMPLE_BUFFER_BATCHES,
    ).strip()


def _findings(rows: Mapping[Kind, Rows]) -> str:
    lines = [RULE]
    for title, findings in (("The paper's findings", PAPER), ("Our own claims", OWN)):
        lines += [
            f"\n### {title}\n",
            "| finding | compared | common learning rate | tuned per setting |",
            "|---|---|---|---|",
        ]
        for finding in findings:
            cells = " | ".join(answer_cell(answer(finding, rows[kind])) for kind in KINDS)
            lines.append(f"| {finding.statement} | {finding.rule} | {cells} |")
    columns = [f"{name}, {kind}" for name in TASKS for kind in KINDS]
    lines += [
        "\n### Where they hold\n",
        "How many of the decided comparisons hold, by workload and learning rate. Which ones don't "
        "is in `benchmarks/study/records/results.json`.\n",
        f"| finding | {' | '.join(columns)} |",
        "|---" + "|---:" * len(columns) + "|",
        *(_by_workload(finding, rows) for finding in (*PAPER, *OWN)),
    ]
    return "\n".join(lines)


def answer_cell(found: Answer) -> str:
    """A verdict, how many comparisons hold, and the median of their ratios."""
    ratios = [comparison.ratio for comparison in found.comparisons if comparison.ratio is not None]
    ratio = f", ratio {statistics.median(ratios):.2f}" if ratios else ""
    undecided = found.num_asked - found.num_decided
    left_out = f", {undecided} undecided" if undecided else ""
    return f"**{found.verdict}**: {found.num_holding} of {found.num_decided}{ratio}{left_out}"


def _by_workload(finding: Finding, rows: Mapping[Kind, Rows]) -> str:
    """A row of the table that says where a finding holds."""
    cells = []
    for name in TASKS:
        for kind in KINDS:
            decided = [
                comparison.holds
                for comparison in answer(finding, rows[kind]).comparisons
                if comparison.setting.task == name and comparison.holds is not None
            ]
            cells.append(f"{sum(decided)} of {len(decided)}" if decided else "")
    return f"| {finding.statement} | {' | '.join(cells)} |"


def _task(task: Task, rows: Mapping[Kind, Rows]) -> str:
    better = "less" if task.lower_is_better else "more"
    parts = [
        f"Quality: {task.measure} on held-out data, {better} is better. "
        f"Target: {_quality(task, task.target)}.",
        f"![Fresh examples to the target, and quality over fresh examples]({task.name}.png)",
    ]
    for size in task.sizes:
        for kind in KINDS:
            found = [
                row
                for setting, row in rows[kind].items()
                if (setting.task, setting.batch_size) == (task.name, size.batch_size)
            ]
            if found:
                parts.append(
                    f"### Batches of {size.batch_size}, learning rate "
                    + (
                        f"{size.learning_rate:g} for all"
                        if kind == "common"
                        else "tuned per setting"
                    )
                )
                parts.append(f"S0 = {size.num_steps}, F = {size.num_steps * size.batch_size:,}.")
                parts.append(_table(task, found, rows[kind]))
    return "\n\n".join(parts)


def _table(task: Task, found: list[Row], rows: Rows) -> str:
    lines = [
        "| echoing | e | learning rate | reached | fresh examples to the target | / e = 1 "
        f"| steps to the target | {task.measure} at equal fresh | {task.measure} at equal steps |",
        "|---" + "|---:" * 8 + "|",
    ]
    for row in found:
        setting = row.setting
        base = rows.get(unechoed(setting))
        most_fresh = setting.size.num_steps * setting.batch_size
        lines.append(
            f"| {METHOD_NAMES[setting.method]} | {setting.factor} | {row.learning_rate:g} "
            f"| {row.num_reached} of {len(SEEDS)} | {_count(row.fresh, most_fresh)} "
            f"| {_ratio(row, base)} | {_count(row.steps, setting.num_steps)} "
            f"| {_range(task, row.equal_fresh)} | {_range(task, row.equal_steps)} |"
        )
    return "\n".join(lines)


def _count(value: Spread, most: int) -> str:
    median, least, greatest = (
        f"{number:,.0f}" if math.isfinite(number) else f">{most:,}" for number in value
    )
    return f"{median} ({least} to {greatest})"


def _ratio(row: Row, base: Row | None) -> str:
    if base is None or math.isinf(row.fresh.median) or math.isinf(base.fresh.median):
        return ""
    return f"{row.fresh.median / base.fresh.median:.2f}"


def _range(task: Task, value: Spread) -> str:
    median, least, most = (_quality(task, number) for number in value)
    return f"{median} ({least} to {most})"


def _quality(task: Task, value: float) -> str:
    return f"{value:.3f}" if task.lower_is_better else f"{100 * value:.1f} %"
