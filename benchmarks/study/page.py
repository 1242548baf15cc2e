"""The study's page, made from its rows and answers."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
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

REMARKS = Path(__file__).parent / "remarks.md"


def page(rows: Mapping[Kind, Rows], num_runs: int) -> str:
    """The whole page.

    Args:
        rows: By the kind of learning rate.
        num_runs: How many runs are finished.
    """
    parts = [_head(num_runs), "## Findings", _findings(rows), REMARKS.read_text().strip()]
    for task in TASKS.values():
        if any(setting.task == task.name for kind in KINDS for setting in rows[kind]):
            parts += [f"## {task.title}", _task(task, rows)]
    return "\n\n".join(parts) + "\n"


def _head(num_runs: int) -> str:
    return f"""# The study: does echoing save data?

[Choi et al., arXiv 1907.05550](https://arxiv.org/abs/1907.05550) asked how many fresh examples echoing saves, where one should echo, and
whether it harms the result. Here their questions are asked of five workloads that are small enough for two cores: two language models, two image
classifiers, a detector. All data ships in Python packages. The models are tiny and train for a few hundred steps, so what is below says something about
the beginning of training, and nothing about ImageNet.

Not everybody finds a gain: [arXiv 2609.13922](https://arxiv.org/abs/2609.13922) (2026) reports that for a small language model reuse saved data, not time, and only with
large minibatches. This study counts fresh examples and steps. It measures no seconds: when steps are free is the subject of [Finding the factor](../callback.md).

- **Runs:** {num_runs:,}, by `make study`, on JAX. Each is `model.fit(EchoingPyDataset(...))` with Adam and a constant learning rate, from {len(SEEDS)} seeds
  (0 to {len(SEEDS) - 1}), each with its initial weights and its order of the data; all settings of a seed read the same stream of fresh examples.
- **Without echoing** (e = 1) a run takes S0 steps and so reads F examples. With echoing factor e it takes e · S0 steps and reads F examples too.
- **Target:** a quality that was fixed by a pilot at e = 1 with other seeds, as were S0 and the common learning rate
  (`benchmarks/study/plan.py`, committed before the runs; the pilot's runs are `pilot.jsonl`). There are {NUM_EVALUATIONS} evaluations in S0 steps, whatever e is. The target is reached at the first of two evaluations
  in a row that are at it or better; where between that one and the one before, a straight line tells.
- **Learning rate:** the *common* one is the same for all settings of a workload and batch size. The *tuned* one is, for each setting, the common one times one of
  {", ".join(f"{scale:g}" for scale in TUNING_GRID)}: with which most of the seeds {" and ".join(map(str, TUNING_SEEDS))} reach the target, and among those with fewest fresh examples.
  These seeds are among those reported, which flatters every tuned setting a little, e = 1 included.
- **Kinds of echoing:** whole *batches*; batches through a *shuffle buffer* of {SHUFFLE_BUFFER_BATCHES} batches; *examples* in a buffer of {EXAMPLE_BUFFER_BATCHES} batches' worth, *before* augmentation
  (each copy augmented anew) or *after* it (copies of one augmented example). What buffers hold counts as read. The language models have no augmentation.
- **Tables** show medians of {len(SEEDS)} seeds and, in brackets, their range. A run that never reached its target counts as one that needed more than it read (>); a median
  is a number if more than half of the runs reached it. Final quality is the mean of three evaluations: the last three before more than F examples were read, and the last three up to step S0.
- Everything is in [results.json](results.json), and every run in [runs.jsonl](runs.jsonl)."""


def _findings(rows: Mapping[Kind, Rows]) -> str:
    lines = [
        "A finding of the paper is confirmed here if at least three quarters of the comparisons hold, a claim of our own, written down before the runs, "
        "if all do; comparisons in which neither side reached the target are left out, and if these are more than half, the finding was not tested. "
        "Ratios are medians over the comparisons: of fresh examples, the first named over the second.",
    ]
    for title, findings in (("The paper's findings", PAPER), ("Our own claims", OWN)):
        lines += [
            f"\n### {title}\n",
            "| finding | compared | common learning rate | tuned per setting |",
            "|---|---|---|---|",
        ]
        for finding in findings:
            cells = " | ".join(_cell(answer(finding, rows[kind])) for kind in KINDS)
            lines.append(f"| {finding.statement} | {finding.rule} | {cells} |")
        lines += [_exceptions(finding, rows) for finding in findings]
    return "\n".join(lines)


def _cell(found: Answer) -> str:
    ratios = [comparison.ratio for comparison in found.comparisons if comparison.ratio is not None]
    ratio = f", ratio {statistics.median(ratios):.2f}" if ratios else ""
    undecided = found.num_asked - found.num_decided
    left_out = f", {undecided} undecided" if undecided else ""
    return f"**{found.verdict}**: {found.num_holding} of {found.num_decided}{ratio}{left_out}"


def _exceptions(finding: Finding, rows: Mapping[Kind, Rows]) -> str:
    """Where a finding doesn't hold, in words."""
    parts = []
    for kind in KINDS:
        against = [
            f"{c.setting.task} {c.setting.batch_size} {METHOD_NAMES[c.setting.method]} e={c.setting.factor}"
            + ("" if c.ratio is None else f" ({c.ratio:.2f})")
            for c in answer(finding, rows[kind]).comparisons
            if c.holds is False
        ]
        if against:
            parts.append(f"{kind}: {'; '.join(against)}")
    if not parts:
        return ""
    return f"\nAgainst “{finding.statement}” {'. '.join(parts)}."


def _task(task: Task, rows: Mapping[Kind, Rows]) -> str:
    better = "less" if task.lower_is_better else "more"
    parts = [
        f"Quality: {task.measure} on held-out data, {better} is better. Target: {_quality(task, task.target)}.",
        f"![{task.title}: fresh examples to the target, and quality over fresh examples]({task.name}.png)",
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
        "| echoing | e | learning rate | reached | fresh examples to the target | / e = 1 | steps to the target "
        f"| {task.measure} at equal fresh | {task.measure} at equal steps |",
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
