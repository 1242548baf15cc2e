"""Spans -> `StepBreakdown`: what a step and its input cost. Pure: no clock, no I/O, no Keras.

Which average is taken where, and why:

- A step's time and its wait are means. A starved run with echoing has a few slow steps (fresh
  batches) among many fast ones (echoed batches), and its median step waits for nothing.
- t_upstream is a mean as well: what readers deliver in an hour depends on the sum of the reads, slow
  ones included.
- t_downstream is a median where the training thread runs in step with the device, because all
  optimizer steps do the same work and a pause (garbage collection, a busy machine) is none of it. On
  asynchronous backends only the sum over the window means anything: the thread dispatches ten steps
  in no time and waits for all of them in the eleventh.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from keras_echo.profiling.spans import Spans, merge

if TYPE_CHECKING:
    from keras_echo.profiling.spans import Array

STARVED = 0.05
"""From this share of a step spent waiting on, a window counts as starved."""

MISSING_STEPS = (
    "no step markers: profile through keras_echo.DataEchoCallback, or wrap every training step in "
    "the profiler's step annotation"
)
MISSING_WAITS = (
    "no input wait: train on a keras_echo.EchoingPyDataset, or record with the profiler's Python "
    "tracer switched on"
)
MISSING_READS = (
    "no upstream reads, so R is a bound: train on a keras_echo.EchoingPyDataset to have them marked"
)
MISSING_READERS = (
    "no number of readers, so those that were seen are counted: pass readers= with each read"
)
MISSING_DEVICE = "no device events although the device runs asynchronously: switch the profiler's device tracer on"
MISSING_WORK = "no time outside the input wait: profile more steps, after compilation"


@dataclass(frozen=True)
class StepBreakdown:
    """What one optimizer step costs, and what its input costs. NaN is what is not known."""

    steps: int
    """Optimizer steps in the window."""
    step_seconds: float
    """Mean time from one optimizer step to the next."""
    wait_seconds: float
    """Mean time per optimizer step in which training asked for a batch and had none."""
    upstream_seconds: float
    """t_upstream: seconds per fresh batch, all readers at work."""
    downstream_seconds: float
    """t_downstream: seconds per optimizer step that never waits."""
    ratio: float
    """R, t_upstream over t_downstream; see `bound`."""
    wait_fraction: float
    """Share of the step that is wait."""
    recommended_factor: float
    """The echoing factor up to which the extra steps are free: R, at least 1."""
    origin: Literal["trace", "counters"] = "trace"
    bound: Literal["exact", "lower", "upper"] = "exact"
    """Whether R is at least ("lower") or at most ("upper") `ratio`."""
    num_readers: int | None = None
    backend: str = "unknown"
    hardware: str = "CPU"
    starved_fraction: float = math.nan
    """Share of the step in which the device idles because training waits for a batch."""
    missing: tuple[str, ...] = ()
    """What the trace could not say, and how to record it."""
    path: str | None = None
    """The file that this was read from."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    @property
    def input_bound(self) -> bool:
        """Whether reading takes longer than training, as far as is known."""
        return self.ratio > 1.0 and self.bound != "upper"

    def speedup(self, factor: float | None = None) -> float:
        """Optimizer steps per second with echoing over those without, by the cost model.

        Args:
            factor: The echoing factor; default: the recommended one.

        Returns:
            The quotient; 1 where nothing is known.
        """
        factor = self.recommended_factor if factor is None else factor
        up, down = self.upstream_seconds, self.downstream_seconds
        if not (math.isfinite(self.ratio) and down > 0):
            return 1.0
        return factor * max(up, down) / max(up, factor * down)


def breakdown(spans: Spans, *, echo_factor: float = 1.0, path: str | None = None) -> StepBreakdown:
    """Works out what a step and its input cost.

    Args:
        spans: What the trace holds.
        echo_factor: The factor that was in force; only used where the trace shows no reads.
        path: The file that the spans come from, handed through.

    Returns:
        The breakdown; where the trace cannot say, NaN and an entry in `missing`.
    """
    steps = _contiguous(spans.steps)
    total = float(np.sum(steps[:, 1] - steps[:, 0]))
    if not total > 0.0:
        return _unknown(spans, path, (MISSING_STEPS,))
    inside = _overlap(np.column_stack((spans.waits[:, 0],) * 2), steps, count=True)
    # One call of the train function fetches one batch per optimizer step.
    per_call = max(1, round(float(np.mean(inside)))) if spans.marked and len(spans.waits) else 1
    updates = len(steps) * per_call
    waits, busy = merge(spans.waits), spans.busy
    waited = _overlap(waits, steps)
    if _counts_busy(spans, per_call):
        both = (
            waited + _overlap(busy, steps) - _overlap(merge(np.concatenate((waits, busy))), steps)
        )
        starved = np.maximum(waited - both, 0.0)
    else:
        starved = waited
    rest = (steps[:, 1] - steps[:, 0] - starved) / per_call
    down = float(np.mean(rest) if spans.asynchronous else np.median(rest))
    step = total / updates
    starved_step = float(np.sum(starved)) / updates
    missing = _gaps(spans)
    if not spans.sees_waits:
        down = math.nan
    elif down <= 1e-9 or down < 1e-6 * step:
        down, missing = math.nan, (*missing, MISSING_WORK)
    hungry = starved_step / step >= STARVED
    up, bound = _upstream(spans, steps, updates, step, starved_step, hungry, echo_factor)
    ratio = up / down
    if bound == "upper" and not spans.reads:
        ratio = min(1.0, ratio)
    known = math.isfinite(ratio)
    return StepBreakdown(
        steps=updates,
        step_seconds=step,
        wait_seconds=float(np.sum(waited)) / updates if spans.sees_waits else math.nan,
        upstream_seconds=up,
        downstream_seconds=down,
        ratio=ratio if known else math.nan,
        wait_fraction=float(np.sum(waited)) / total if spans.sees_waits else math.nan,
        recommended_factor=max(1.0, ratio) if known else 1.0,
        bound=bound,
        num_readers=_readers(spans),
        backend=spans.backend,
        hardware=spans.hardware,
        starved_fraction=starved_step / step if spans.sees_waits else math.nan,
        missing=missing,
        path=path,
    )


def from_counters(
    *,
    steps: int,
    seconds: float,
    wait_seconds: float,
    reads: int,
    read_seconds: float,
    num_readers: int,
    backend: str = "unknown",
) -> StepBreakdown:
    """Works out the same from what the dataset counted, where no trace is to be had.

    The step's own time is taken as what is left of the wall clock after the wait, which is right
    where the training thread runs in step with the device.

    Args:
        steps: Optimizer steps in the window.
        seconds: Wall-clock time of the window.
        wait_seconds: How long the training thread waited for batches, in total.
        reads: Upstream reads that ended in the window.
        read_seconds: How long they took, in total.
        num_readers: How many reads can run at the same time.
        backend: The Keras backend.

    Returns:
        The breakdown, its origin "counters".
    """
    steps = max(steps, 0)
    step = seconds / steps if steps else math.nan
    wait = min(max(wait_seconds, 0.0), seconds) / steps if steps else math.nan
    down = step - wait
    up = read_seconds / reads / max(num_readers, 1) if reads else math.nan
    ratio = up / down if down > 0 else math.nan
    missing = tuple(
        text
        for text, lacks in (
            (MISSING_STEPS, not steps),
            (MISSING_READS, not reads),
            (MISSING_WORK, bool(steps) and not down > 0),
        )
        if lacks
    )
    known = math.isfinite(ratio)
    fraction = wait / step if steps and step > 0 else math.nan
    return StepBreakdown(
        steps=steps,
        step_seconds=step,
        wait_seconds=wait,
        upstream_seconds=up,
        downstream_seconds=down if down > 0 else math.nan,
        ratio=ratio if known else math.nan,
        wait_fraction=fraction,
        recommended_factor=max(1.0, ratio) if known else 1.0,
        origin="counters",
        num_readers=num_readers,
        backend=backend,
        starved_fraction=fraction,
        missing=missing,
    )


def _contiguous(steps: Array) -> Array:
    """Lets every step last until the next one starts, so that whatever lies between counts."""
    steps = steps[np.all(np.isfinite(steps), axis=1)]
    steps = steps[np.argsort(steps[:, 0], kind="stable")].copy()
    if len(steps) < 2:
        return steps
    gaps = steps[1:, 0] - steps[:-1, 1]
    usual = float(np.median(steps[:, 1] - steps[:, 0])) + float(np.median(np.maximum(gaps, 0.0)))
    # A longer gap is no part of a step: an epoch ended there, or a checkpoint was written.
    steps[:-1, 1] = np.where(gaps <= usual, steps[1:, 0], steps[:-1, 1])
    return steps


def _overlap(spans: Array, windows: Array, *, count: bool = False) -> Array:
    """Returns, for every window, the time that spans cover; or how many spans start in it."""
    if count:
        edges = np.sort(spans[:, 0])
        found: Array = (
            np.searchsorted(edges, windows[:, 1]) - np.searchsorted(edges, windows[:, 0])
        ).astype(np.float64)
        return found
    if not len(spans):
        return np.zeros(len(windows))
    covered = np.zeros(2 * len(spans))
    covered[1::2] = spans[:, 1] - spans[:, 0]
    covered = np.cumsum(covered)
    until = np.interp(windows.ravel(), spans.ravel(), covered).reshape(-1, 2)
    overlap: Array = until[:, 1] - until[:, 0]
    return overlap


def _counts_busy(spans: Spans, per_call: int) -> bool:
    # With one batch per call on a TensorFlow CPU, nothing can run before the batch is there: what
    # the executor does during the wait belongs to the input.
    return len(spans.busy) > 0 and (spans.asynchronous or per_call > 1)


def _readers(spans: Spans) -> int | None:
    return spans.num_readers or len(spans.reads) or None


def _gaps(spans: Spans) -> tuple[str, ...]:
    lacks = (
        (MISSING_WAITS, not spans.sees_waits),
        (MISSING_READS, not spans.reads),
        (MISSING_READERS, bool(spans.reads) and spans.num_readers is None),
        (MISSING_DEVICE, spans.asynchronous and not len(spans.busy)),
    )
    return tuple(text for text, holds in lacks if holds)


def _upstream(
    spans: Spans,
    steps: Array,
    updates: int,
    step: float,
    starved_step: float,
    hungry: bool,
    echo_factor: float,
) -> tuple[float, Literal["exact", "lower", "upper"]]:
    if spans.reads:
        durations = np.concatenate([read[:, 1] - read[:, 0] for read in spans.reads])
        between = [np.maximum(read[1:, 0] - read[:-1, 1], 0.0) for read in spans.reads]
        idle = np.concatenate(between)
        # A reader that is starving the training reads all the time: what lies between two reads of
        # a thread is the price of handing batches over, and belongs to the read.
        handing_over = float(np.median(idle)) if hungry and len(idle) else 0.0
        readers = _readers(spans) or 1
        seconds = (float(np.mean(durations)) + handing_over) / readers
        return seconds, "exact" if spans.num_readers else "upper"
    if not spans.sees_waits:
        return math.nan, "exact"
    if spans.producers:
        window = np.array([[steps[0, 0], steps[-1, 1]]])
        slowest = max(float(_overlap(merge(lane), window)[0]) for lane in spans.producers)
        if hungry:
            # Input that works ahead and still comes late arrives as fast as it can.
            return step * echo_factor, "exact"
        return slowest / updates * echo_factor, "lower"
    if hungry:
        # Whether reading went on while the step ran is not known; the wait is the least it takes.
        return starved_step * echo_factor, "lower"
    return step * echo_factor, "upper"


def _unknown(spans: Spans, path: str | None, missing: tuple[str, ...]) -> StepBreakdown:
    nan = math.nan
    return StepBreakdown(
        steps=0,
        step_seconds=nan,
        wait_seconds=nan,
        upstream_seconds=nan,
        downstream_seconds=nan,
        ratio=nan,
        wait_fraction=nan,
        recommended_factor=1.0,
        num_readers=_readers(spans),
        backend=spans.backend,
        hardware=spans.hardware,
        missing=missing,
        path=path,
    )
