"""What a comparison of training runs shows, as a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_echo._optional import optional

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from keras_echo.demo.comparison.table import Goal, Run

# Okabe and Ito's colours, which colour-blind readers can tell apart; the first is the baseline's.
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "os^Dvp"


def plot(runs: Sequence[Run], goal: Goal, path: str | os.PathLike[str]) -> None:
    """Draws the goal's metric over wall-clock time, as a PNG of 1200 x 700 pixels.

    Args:
        runs: The first is the baseline.
        goal: Marked in the plot.
        path: Where the PNG goes.
    """
    # A Figure of its own, not pyplot's: it needs no display and leaves the caller's backend alone.
    figure = optional("matplotlib.figure", "draws the plot").Figure(
        figsize=(8, 14 / 3), dpi=150, layout="constrained"
    )
    axes = figure.add_subplot()
    scale = 1 if goal.is_loss else 100
    axes.axhline(scale * goal.target, color="#666666", linewidth=1, linestyle="--")
    for i, run in enumerate(runs):
        colour, marker = _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]
        axes.plot(
            [point.seconds for point in run.curve],
            [scale * point.value for point in run.curve],
            color=colour,
            marker=marker,
            markersize=3,
            linewidth=1.8,
            label=f"{run.name} (factor {run.factor:.1f})",
        )
        reached = goal.reached(run)
        if reached:
            axes.axvline(reached.seconds, color=colour, linewidth=1, linestyle=":")
            axes.annotate(
                f"{reached.seconds:.1f} s",
                (reached.seconds, scale * goal.target),
                xytext=(5, -15 * (i + 1)),  # runs that are equally fast stay readable
                textcoords="offset points",
                color=colour,
                fontweight="bold",
            )
    # The last points before the target matter, not the climb from chance; yet no run may fall out.
    best = [goal.best(run) for run in runs]
    if goal.is_loss:
        axes.set_ylim(0.95 * min(goal.target, *best), 1.05 * max(1.25 * goal.target, *best))
    else:
        axes.set_ylim(max(0.0, 100 * min(goal.target - 0.3, min(best) - 0.05)), 100)
    axes.set_xlim(0, 1.08 * max(run.curve[-1].seconds for run in runs))
    axes.set_xlabel("wall-clock seconds")
    axes.set_ylabel(goal.metric if goal.is_loss else f"{goal.metric} (%)")
    axes.set_title(f"Time to {goal}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, format="png")
