"""The picture: what worth says of a setting, and what echoing saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from study.plan import AUTO, TASKS
from study.worth.plan import FACTORS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from study.worth.summary import Prediction

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = dict(zip(TASKS, ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#CC79A7"), strict=True))
MARKERS = {"batch": "s", AUTO: "o"}
NAMES = {"batch": "no shuffle buffer", AUTO: "the default's buffer"}
LARGER, SMALLER = 42, 16  # areas, by the size of the batches


def draw(found: Sequence[Prediction], path: Path) -> None:
    """A panel for each factor, a point for each setting."""
    figure = Figure(figsize=(10, 4.2), dpi=130, layout="constrained")
    panels = figure.subplots(1, len(FACTORS), sharey=True)
    for axes, factor in zip(panels, FACTORS, strict=True):
        axes.axhline(1, color="#666666", linewidth=0.8)
        axes.axvline(0, color="#666666", linewidth=0.8)
        for each in found:
            if each.setting.factor == factor:
                _point(axes, each)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.set_title(f"e = {factor}", fontsize=9)
        axes.set_xlabel(f"worth of use {factor} / worth of use 1")
    panels[0].set_ylabel("data saved: fresh examples at e = 1 / at e")
    handles = [
        panels[0].scatter([], [], color=colour, label=task) for task, colour in COLOURS.items()
    ] + [
        panels[0].scatter([], [], color="#000000", marker=marker, label=NAMES[method])
        for method, marker in MARKERS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=7, frameon=False, fontsize=8)
    figure.suptitle("What worth says and what echoing saved; large points: larger batches")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _point(axes: Axes, each: Prediction) -> None:
    setting = each.setting
    is_larger = setting.size is TASKS[setting.task].sizes[-1]
    colour = COLOURS[setting.task]
    axes.errorbar(
        each.last.mean,
        each.saved,
        xerr=each.last.standard_error,
        color=colour,
        alpha=0.4,
        linewidth=0.9,
    )
    axes.scatter(
        each.last.mean,
        each.saved,
        s=LARGER if is_larger else SMALLER,
        color=colour,
        marker=MARKERS[setting.method],
        zorder=3,
    )
