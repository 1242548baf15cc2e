"""Decisions for people: a line for each, a report on all, a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from keras_echo._messages import expected, sentence
from keras_echo._optional import optional
from keras_echo.adapting.worth import Estimates
from keras_echo.profiling.measuring.result import STARVED

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from keras_echo.adapting.remedies import Remedy
    from keras_echo.adapting.tuner import EchoDecision


def line(decision: EchoDecision) -> str:
    """Returns a decision as Keras's own callbacks would print it."""
    before, after = decision.previous_factor, decision.factor
    verb = "raises" if after > before else "lowers"
    change = f"keeps echo_factor at {after:g}"
    if after != before:
        change = f"{verb} echo_factor from {before:g} to {after:g}"
    return f"DataEchoCallback {change}. {sentence(decision.reason)}"


def advice(decision: EchoDecision, remedy: Remedy) -> str:
    """Returns in a sentence why training waits, and what would help; R is known then."""
    found = decision.breakdown
    waited = found.wait_fraction
    why = f"reading takes {found.ratio:.1f} times as long as training"
    if math.isfinite(waited) and waited > STARVED:
        why = f"training waited {waited:.0%} of its time"
    if remedy.kind == "queue":
        brings = f"{remedy.fresh_per_second:.3g} fresh batches a second"
    else:
        brings = f"R from {found.ratio:.1f} to about {remedy.ratio:.1f}"
    return f"{why}; {remedy.change} would bring {brings}{_provided(remedy)}: {remedy.how}"


def listed(remedies: Sequence[Remedy]) -> str:
    """Returns remedies as a list, the best first."""
    if not remedies:
        return "Nothing to gain: training hardly waits for its input, or nothing is known of it."
    return "\n".join(
        f"{number}. {sentence(remedy.change[:1].upper() + remedy.change[1:])} Then R = "
        f"{remedy.ratio:.1f}: {remedy.fresh_per_second:.3g} fresh batches and "
        f"{remedy.steps_per_second:.3g} steps a second{_provided(remedy)}.\n   {remedy.how}"
        for number, remedy in enumerate(remedies, 1)
    )


def _provided(remedy: Remedy) -> str:
    return f", provided that {remedy.provided}" if remedy.provided else ""


def reason(estimates: Estimates, last: int) -> str:
    """Returns why the factor follows what the uses of a batch are worth."""
    harm = estimates.harm(last)
    if harm is not None:
        first, last, estimate = harm
    else:
        first, estimate = last, estimates[last]
    uses, verb = (f"Use {last}", "s") if first == last else (f"Uses {first} to {last}", "")
    return (
        f"{uses} of a batch {'raise' if estimate.mean < 0 else 'lower'}{verb} the loss on unseen "
        f"data, by {abs(estimate.mean):.2g} ± {estimate.standard_error:.2g} each "
        f"({estimate.num} steps)"
    )


def worth_line(estimates: Estimates, problem: str | None = None) -> str:
    """Returns what the uses of a batch are worth, compared with the first; "" if nobody asked."""
    shares = estimates.relative()
    if shares:
        told = ", ".join(
            f"{use}: {share.mean:.0%} ± {share.standard_error:.0%}" for use, share in shares.items()
        )
        return f"What a use of a batch is worth, over the first one: {told}"
    if problem is not None:
        return f"What a use is worth isn't known: {problem}."
    if estimates:
        return "What a use is worth isn't known yet: even the first one's effect is lost in noise."
    return ""


def report(
    decisions: Sequence[EchoDecision],
    remedies: Sequence[Remedy] = (),
    estimates: Estimates | None = None,
    problem: str | None = None,
) -> str:
    """Returns what was measured and decided, a line per decision, and what would help.

    "-" is what is unknown.
    """
    if not decisions:
        return (
            "No decision yet: fit() has not reached the first window, or its epochs are too short."
        )
    titles = ("step", "R", "window's R", "factor", "upstream", "step time", "wait")
    widths = (8, 6, 10, 6, 10, 10, 5)
    rows = [
        (
            str(decision.step),
            _shown(decision.ratio, ".2f"),
            _shown(decision.breakdown.ratio, ".2f"),
            f"{decision.factor:.2f}",
            _shown(1e3 * decision.breakdown.upstream_seconds, ".2f", " ms"),
            _shown(1e3 * decision.breakdown.downstream_seconds, ".2f", " ms"),
            _shown(decision.breakdown.wait_fraction, ".0%"),
            decision.breakdown.origin,
        )
        for decision in decisions
    ]
    lines = [
        "  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in [(*titles, "from"), *rows]
    ]
    last = [f"Last: {line(decisions[-1])}", "", "What would help:", listed(remedies)]
    known = worth_line(estimates or Estimates(), problem)
    return "\n".join([*lines, *last, *(["", known] if known else [])])


def _shown(value: float, form: str, unit: str = "") -> str:
    return f"{value:{form}}{unit}" if math.isfinite(value) else "-"


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
    windows = [decision.breakdown.ratio for decision in decisions]
    axes.plot(steps, windows, "o", color="#bbbbbb", label="R of each window")
    ratios = [decision.ratio for decision in decisions]
    axes.plot(steps, ratios, "o-", markersize=3, color="#444444", label="R, on which it rests")
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
