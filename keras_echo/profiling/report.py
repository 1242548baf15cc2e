"""What a breakdown says in words, and as plain data."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from keras_echo._messages import printable
from keras_echo.profiling.measuring.result import STARVED

if TYPE_CHECKING:
    from keras_echo.profiling.measuring.reading import Reading
    from keras_echo.profiling.measuring.result import StepBreakdown

_ALL = 0.95
"""Share of a read from which on the rest doesn't matter."""

_NOISE = 1.05
"""Half a tenth above 1 is measurement noise, not a bottleneck."""


def to_dict(breakdown: StepBreakdown) -> dict[str, Any]:
    """Returns a breakdown as data for JSON, which has no NaN: what is unknown is None."""
    low, high = breakdown.ratio_range
    data = asdict(breakdown) | {
        "ratio": breakdown.ratio,
        "wait_fraction": breakdown.wait_fraction,
        "recommended_factor": breakdown.recommended_factor,
        "ratio_at_least": low,
        "ratio_at_most": high,
        "complete": breakdown.complete,
        "predicted_speedup": breakdown.speedup(),
        "verdict": verdict(breakdown),
        "missing": list(breakdown.missing),
    }
    return _known(data)


def _known(data: dict[str, Any]) -> dict[str, Any]:
    """The same with None for what is unknown, and for what is infinite."""

    def known(value: Any) -> Any:
        if isinstance(value, dict):
            return _known(value)
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {key: known(value) for key, value in data.items()}


def verdict(breakdown: StepBreakdown) -> str:
    """Returns one sentence: is the training input-bound, and what would echoing do."""
    low, high = breakdown.ratio_range
    if not breakdown.steps:
        return "Nothing can be said: no training steps were found."
    starved = breakdown.starved_fraction >= STARVED
    waits = f"training waits {breakdown.starved_fraction:.0%} of the time"
    if not math.isfinite(breakdown.ratio):
        if starved:
            return f"T{waits[1:]}; whether echoing helps cannot be told from this trace."
        return "Whether training waits for its input cannot be told from this trace."
    if high <= _NOISE:
        if starved:
            return f"Echoing would not save time, but reading ahead would: {waits}."
        return "Not input-bound: echoing would not save time."
    if _helps(breakdown):
        least, most = f"{low:.1f}", f"{high:.1f}"
        uses = least if least == most else f"{least} to {most}"
        return (
            f"Input-bound: each fresh batch can be used {uses} times before the extra steps "
            "cost time."
        )
    if starved:
        return (
            f"T{waits[1:]}; whether echoing helps depends on the reading time, which the trace "
            "does not show."
        )
    if not math.isfinite(breakdown.wait_fraction):
        return f"At most a factor of {high:.1f} is to be gained; the trace does not show the wait."
    return "Not input-bound at this echoing factor: training hardly waits."


def render(breakdown: StepBreakdown) -> str:
    """Returns the report on one trace, for people."""
    missing = [f"  missing       {text}" for text in breakdown.missing]
    lines = [
        printable(breakdown.path or f"from {breakdown.origin}"),
        f"  backend       {breakdown.backend} on {breakdown.hardware}",
        f"  steps         {breakdown.steps}",
    ]
    if breakdown.steps:
        lines += [
            f"  step time     {_seconds(breakdown.step_seconds)}",
            f"  input wait    {_wait(breakdown)}",
            f"  t_upstream    {_upstream(breakdown)}",
            *([f"  reading       {_reading(breakdown.reading)}"] if breakdown.reading else []),
            f"  t_downstream  {_downstream(breakdown)}",
            f"  R             {_ratio(breakdown)}",
        ]
    lines.append(f"  verdict       {verdict(breakdown)}")
    if breakdown.steps and math.isfinite(breakdown.ratio):
        lines.append(f"  echo factor   {_factor(breakdown)}")
    return "\n".join(lines + missing)


def _seconds(value: float) -> str:
    if not math.isfinite(value):
        return "unknown"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.2f} ms"


def _wait(breakdown: StepBreakdown) -> str:
    if not math.isfinite(breakdown.wait_seconds):
        return "unknown"
    return f"{_seconds(breakdown.wait_seconds)} per step ({breakdown.wait_fraction:.0%})"


def _upstream(breakdown: StepBreakdown) -> str:
    words = {"exact": "", "lower": "at least ", "upper": "at most "}
    text = f"{_seconds(breakdown.upstream_seconds)} per fresh batch"
    if breakdown.num_readers:
        text += f", readers: {breakdown.num_readers}"
    return words[breakdown.bound] + text if math.isfinite(breakdown.upstream_seconds) else "unknown"


def _reading(reading: Reading) -> str:
    waiting = reading.waiting_fraction
    text = f"{_seconds(reading.read_seconds)} for a read of {_bytes(reading.setup.batch_bytes)}: "
    text += f"{waiting:.0%} waiting, {1 - waiting:.0%} computing"
    if waiting < _ALL and math.isfinite(reading.locked_seconds):
        locked = reading.locked_seconds / reading.compute_seconds
        text += f", of which {locked:.0%} holds the interpreter's lock"
    return text


def _bytes(value: float) -> str:
    if not math.isfinite(value):
        return "unknown size"
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def _downstream(breakdown: StepBreakdown) -> str:
    text = f"{_seconds(breakdown.downstream_seconds)} per optimizer step"
    # Without the waits, all that is known is how long the device worked.
    least = "" if math.isfinite(breakdown.wait_seconds) else "at least "
    return least + text if math.isfinite(breakdown.downstream_seconds) else "unknown"


def _helps(breakdown: StepBreakdown) -> bool:
    """Returns whether R is known to be more than 1, and by more than noise."""
    return breakdown.input_bound and breakdown.ratio_range[0] > _NOISE


def _factor(breakdown: StepBreakdown) -> str:
    if not _helps(breakdown):
        known = breakdown.ratio_range[1] <= _NOISE
        return "1.0 (no echoing)" if known else "1.0 until more is known"
    factor = f"{breakdown.recommended_factor:.1f}"
    least = "at least " if breakdown.bound == "lower" else ""
    return (
        f"{factor} recommended; the cost model predicts {least}{breakdown.speedup():.1f}x the "
        "optimizer steps in the same time"
    )


def _ratio(breakdown: StepBreakdown) -> str:
    low, high = breakdown.ratio_range
    if not math.isfinite(breakdown.ratio):
        return "unknown"
    if breakdown.bound == "exact":
        return f"{breakdown.ratio:.2f}"
    if breakdown.bound == "upper":
        return f"at most {high:.2f}"
    return f"at least {low:.2f}, at most {high:.2f}"
