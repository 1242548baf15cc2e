"""What the demo's runs show, as a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_echo._messages import expected
from keras_echo.demo.report import percent

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from keras_echo.demo.report import Run

# Okabe and Ito's colours, which colour-blind readers can tell apart; the first is the baseline's.
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "os^Dvp"


def plot(runs: Sequence[Run], target: float, path: str | os.PathLike[str]) -> None:
    """Draws validation accuracy over wall-clock time, as a PNG of 1200 x 700 pixels.

    Args:
        runs: The first is the baseline.
        target: The validation accuracy to mark, in 0..1.
        path: Where the PNG goes.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            expected(
                "matplotlib",
                "be installed, it draws the demo's plot",
                str(error),
                'Run pip install "keras-echo[examples]"',
            )
        ) from error
    # A Figure of its own, not pyplot's: it needs no display and leaves the caller's backend alone.
    figure = Figure(figsize=(8, 14 / 3), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    goal = 100 * target
    axes.axhline(goal, color="#666666", linewidth=1, linestyle="--")
    for i, run in enumerate(runs):
        colour, marker = _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]
        axes.plot(
            [point.seconds for point in run.curve],
            [100 * point.validation_accuracy for point in run.curve],
            color=colour,
            marker=marker,
            markersize=3,
            linewidth=1.8,
            label=f"{run.name} (factor {run.factor:.1f})",
        )
        reached = run.reached(target)
        if reached:
            axes.plot(
                [reached.seconds, reached.seconds],
                [0, 100 * reached.validation_accuracy],
                color=colour,
                linewidth=1,
                linestyle=":",
            )
            axes.annotate(
                f"{reached.seconds:.1f} s",
                (reached.seconds, goal),
                xytext=(5, -15 * (i + 1)),  # runs that are equally fast stay readable
                textcoords="offset points",
                color=colour,
                fontweight="bold",
            )
    # The last points before the target matter, not the climb from chance; yet no run may fall out.
    axes.set_ylim(max(0.0, min(goal - 30, *(100 * run.best - 5 for run in runs))), 100)
    axes.set_xlim(0, 1.08 * max(run.curve[-1].seconds for run in runs))
    axes.set_xlabel("wall-clock seconds")
    axes.set_ylabel("validation accuracy (%)")
    axes.set_title(f"Time to {percent(target)} validation accuracy")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, format="png")
