"""Decisions for people: a line for each, a report on all, a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_echo._messages import expected
from keras_echo._optional import optional

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from keras_echo.tuner import EchoDecision


def line(decision: EchoDecision) -> str:
    """Returns a decision as Keras's own callbacks would print it."""
    before, after = decision.previous_factor, decision.factor
    if after == before:
        return f"DataEchoCallback keeps echo_factor at {after:g}. {decision.reason}."
    verb = "raises" if after > before else "lowers"
    return f"DataEchoCallback {verb} echo_factor from {before:g} to {after:g}. {decision.reason}."


def report(decisions: Sequence[EchoDecision]) -> str:
    """Returns what was measured and decided, a line per decision."""
    if not decisions:
        return (
            "No decision yet: fit() has not reached the first window, or its epochs are too short."
        )
    head = "    step       R  factor    upstream   step time   wait  from"
    rows = [
        f"{d.step:8}  {d.breakdown.ratio:6.2f}  {d.factor:6.2f}  "
        f"{1e3 * d.breakdown.upstream_seconds:7.2f} ms  "
        f"{1e3 * d.breakdown.downstream_seconds:7.2f} ms  "
        f"{d.breakdown.wait_fraction:5.0%}  {d.breakdown.origin}"
        for d in decisions
    ]
    return "\n".join([head, *rows, f"Last: {line(decisions[-1])}"])


def plot(decisions: Sequence[EchoDecision], path: str | os.PathLike[str]) -> None:
    """Draws R and the factor over the optimizer steps.

    Args:
        decisions: What to draw.
        path: The PNG file.

    Raises:
        ImportError: matplotlib isn't installed.
        ValueError: There is nothing to draw.
    """
    if not decisions:
        raise ValueError(expected("decisions", "hold a decision", "none", "Call plot after fit()"))
    steps = [decision.step for decision in decisions]
    figure = optional("matplotlib.figure", "draws the plot").Figure(
        figsize=(7, 4), layout="constrained"
    )
    axes = figure.subplots()
    axes.plot(
        steps, [d.breakdown.ratio for d in decisions], "o", color="#888888", label="R, measured"
    )
    axes.step(
        [0, *steps, steps[-1] + max(1, steps[-1] // 10)],
        [decisions[0].previous_factor, *(d.factor for d in decisions), decisions[-1].factor],
        where="post",
        color="#d9560b",
        label="echoing factor",
    )
    axes.set(xlabel="optimizer steps", ylabel="uses of each fresh batch")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
