"""A picture per workload: fresh examples to the target over e, and quality over fresh examples."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from study.plan import FACTORS, METHOD_NAMES, NO_ECHO, SEEDS, Run, Setting, Size, Task

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from study.journal import Record
    from study.summary import Rows

# Okabe and Ito's colours, which colour-blind readers can tell apart.
STYLES = {
    NO_ECHO: ("#000000", "o"),
    "batch": ("#D55E00", "s"),
    "batch_shuffled": ("#E69F00", "D"),
    "example": ("#0072B2", "^"),
    "example_before": ("#0072B2", "^"),
    "example_after": ("#CC79A7", "v"),
}
SHOWN_FACTOR = 4


def draw(task: Task, rows: Rows, records: dict[Run, Record], path: Path) -> None:
    """Draws a workload at the learning rates of `rows`, a row of two panels per batch size."""
    figure = Figure(figsize=(9, 3.4 * len(task.sizes) + 0.6), dpi=130, layout="constrained")
    panels = figure.subplots(len(task.sizes), 2, squeeze=False)
    for (left, right), size in zip(panels, task.sizes, strict=True):
        of_size = {
            setting: row
            for setting, row in rows.items()
            if (setting.task, setting.batch_size) == (task.name, size.batch_size)
        }
        _fresh_over_factor(left, task, size, of_size)
        _quality_over_fresh(right, task, size, of_size, records)
    handles, labels = panels[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    figure.suptitle(task.title)
    figure.savefig(path)


def _fresh_over_factor(axes: Axes, task: Task, size: Size, rows: Rows) -> None:
    base = rows.get(Setting(task.name, size.batch_size, NO_ECHO, 1))
    for number, method in enumerate(task.methods):
        colour, marker = STYLES[method]
        shown = [row for row in rows.values() if row.setting.method == method]
        if base:
            shown.insert(0, base)
        shown = [row for row in shown if math.isfinite(row.fresh.median)]
        # Next to each other, so that the ranges can be told apart.
        factors = [row.setting.factor * 1.03 ** (number - 1.5) for row in shown]
        medians = [row.fresh.median for row in shown]
        most_fresh = size.num_steps * size.batch_size
        ranges = [
            [row.fresh.median - row.fresh.least for row in shown],
            [min(row.fresh.most, most_fresh) - row.fresh.median for row in shown],
        ]
        axes.errorbar(
            factors,
            medians,
            ranges,
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.4,
            elinewidth=0.8,
            capsize=2,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks([1, *FACTORS], ["1", *map(str, FACTORS)])
    limits = axes.get_ylim()
    ticks = [size.num_steps * size.batch_size / 2**n for n in range(7)]
    axes.set_yticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.set_ylim(limits)
    axes.set_xlabel("echoing factor e")
    axes.set_ylabel("fresh examples to the target")
    axes.set_title(f"batches of {size.batch_size}: median and range", fontsize=9)
    _tidy(axes)


def _quality_over_fresh(
    axes: Axes, task: Task, size: Size, rows: Rows, records: dict[Run, Record]
) -> None:
    axes.axhline(task.target, color="#666666", linewidth=1, linestyle="--")
    for setting, row in rows.items():
        if setting.factor in (1, SHOWN_FACTOR):
            runs = [records[Run(setting, row.learning_rate, seed)] for seed in SEEDS]
            fresh = [size.batch_size * num for num in runs[0]["fresh_batches"]]
            curve = [
                statistics.median(values)
                for values in zip(*(run["quality"] for run in runs), strict=True)
            ]
            colour, _ = STYLES[setting.method]
            axes.plot(fresh, curve, color=colour, linewidth=1.4, label=METHOD_NAMES[setting.method])
    axes.set_xlabel("fresh examples read")
    axes.set_ylabel(task.measure)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_title(f"batches of {size.batch_size}: median quality, e = {SHOWN_FACTOR}", fontsize=9)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
