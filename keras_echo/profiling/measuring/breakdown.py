"""Spans -> `StepBreakdown`: what a step and its input cost. Pure: no clock, no I/O, no Keras.

Which average is taken where, and why:

- A step's time and its wait are means. A starved run with echoing has a few slow steps (fresh
  batches) among many fast ones (echoed batches), and its median step waits for nothing.
- t_upstream is a mean as well: what readers deliver in an hour depends on the sum of their reads,
  slow ones included. What the dataset noted of it counts (`keras_echo.profiling.measuring.upstream`
  says why reads alone don't tell). Else it is seconds per read over the readers: of one reader that
  is what a batch costs, of several the least.
- t_downstream is a median, because all optimizer steps do the same work and a pause (garbage
  collection, a busy machine) is none of it. But a median of what? On asynchronous backends the
  thread dispatches ten steps in no time and waits for all of them in the eleventh. So the window
  is cut where the device is known to have caught up: where it idles while training waits for a
  batch. What lies between two cuts is divided by its number of steps.
- A step that follows a wait is slower than one that doesn't: caches have gone cold, threads and
  clocks have gone to sleep. On a CPU this was up to twice the time. And a profiled step is slower
  than one that isn't, on a CPU by 5 to 30 %. So where the trace says what steps took for which
  batches lay ready, outside of the window, t_downstream is theirs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from keras_echo.profiling.measuring.result import (
    MISSING_READERS,
    MISSING_READS,
    MISSING_WORK,
    STARVED,
    Bound,
    StepBreakdown,
    missing_device,
    missing_steps,
    missing_waits,
)
from keras_echo.profiling.measuring.spans import Spans, by_start, merge, overlap, starts_in

if TYPE_CHECKING:
    from keras_echo.profiling.measuring.spans import Array


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
        return _unknown(spans, path, (missing_steps(spans.backend),))
    # One call of the train function fetches one batch per optimizer step.
    fetched = float(np.mean(starts_in(spans.waits, steps))) if spans.marked else 1.0
    per_call = max(1, round(fetched))
    updates = len(steps) * per_call
    waited = overlap(merge(spans.waits), steps)
    starved = _starved(spans, steps, per_call)
    down = spans.ready_step_seconds
    if down is None:
        down = _downstream(steps, starved, spans.asynchronous) / per_call
    step = total / updates
    starved_step = float(np.sum(starved)) / updates
    hungry = starved_step / step >= STARVED
    missing = _gaps(spans, hungry)
    if spans.sees_waits and (down <= 1e-9 or down < 1e-6 * step):
        down, missing = math.nan, (*missing, MISSING_WORK)
    up, bound = _upstream(spans, steps, updates, step, starved_step, hungry, echo_factor)
    if not spans.sees_waits:
        # The device's own work is the least that a step takes, the whole step the most that a
        # batch does.
        worked = float(np.sum(overlap(spans.busy, steps))) / updates
        down = worked if spans.asynchronous and worked > 1e-9 else math.nan
    return StepBreakdown(
        steps=updates,
        step_seconds=step,
        wait_seconds=float(np.sum(waited)) / updates if spans.sees_waits else math.nan,
        upstream_seconds=up,
        downstream_seconds=down,
        bound=bound,
        num_readers=_readers(spans),
        backend=spans.backend,
        hardware=spans.hardware,
        starved_fraction=starved_step / step if spans.sees_waits else math.nan,
        held_fraction=spans.upstream.held_fraction if spans.upstream else math.nan,
        reading=spans.reading,
        missing=missing,
        path=path,
    )


def _contiguous(steps: Array) -> Array:
    """Lets every step last until the next one starts, so that whatever lies between counts."""
    steps = steps[np.all(np.isfinite(steps), axis=1)]
    steps = by_start(steps)
    if len(steps) < 2:
        return steps
    gaps = steps[1:, 0] - steps[:-1, 1]
    usual = float(np.median(steps[:, 1] - steps[:, 0])) + float(np.median(np.maximum(gaps, 0.0)))
    # A longer gap is no part of a step: an epoch ended there, or a checkpoint was written.
    steps[:-1, 1] = np.where(gaps <= usual, steps[1:, 0], steps[:-1, 1])
    return steps


def _starved(spans: Spans, steps: Array, per_call: int) -> Array:
    """Returns, for every step, the time in which training waits and the device idles."""
    waits = merge(spans.waits)
    # With one batch per call on a TensorFlow CPU, nothing can run before the batch is there: what
    # the executor does during the wait belongs to the input.
    if not len(spans.busy) or not (spans.asynchronous or per_call > 1):
        return overlap(waits, steps)
    either = overlap(merge(np.concatenate((waits, spans.busy))), steps)
    return np.maximum(either - overlap(spans.busy, steps), 0.0)


def _downstream(steps: Array, starved: Array, asynchronous: bool) -> float:
    """Returns the time that one call takes when it never waits."""
    rest = steps[:, 1] - steps[:, 0] - starved
    if not asynchronous:
        return float(np.median(rest))
    # The device ran dry where it idled in a wait; below a hundredth of the step it's dispatch.
    dry = starved > 0.01 * float(np.mean(steps[:, 1] - steps[:, 0]))
    cuts = np.flatnonzero(dry)
    cuts = np.unique(np.concatenate(([0], cuts)))
    lengths = np.diff(np.append(cuts, len(steps)))
    means = np.add.reduceat(rest, cuts) / lengths
    order = np.argsort(means)
    # The median step, every step counting as the mean of its stretch.
    middle = np.searchsorted(np.cumsum(lengths[order]), len(steps) / 2)
    return float(means[order][middle])


def _readers(spans: Spans) -> int | None:
    return spans.num_readers or len(spans.reads) or None


def _gaps(spans: Spans, hungry: bool) -> tuple[str, ...]:
    lacks = (
        (missing_waits(spans.backend), not spans.sees_waits),
        (MISSING_READS, not spans.reads and not (hungry and spans.works_ahead is not None)),
        (MISSING_READERS, bool(spans.reads) and spans.num_readers is None and not hungry),
        (missing_device(spans.backend), spans.asynchronous and not len(spans.busy)),
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
) -> tuple[float, Bound]:
    if spans.upstream is not None:
        return spans.upstream.seconds, spans.upstream.bound
    if spans.reads:
        durations = np.concatenate([read[:, 1] - read[:, 0] for read in spans.reads])
        between = [np.maximum(read[1:, 0] - read[:-1, 1], 0.0) for read in spans.reads]
        idle = np.concatenate(between)
        # A reader that is starving the training reads all the time: what lies between two reads of
        # a thread is the price of handing batches over, and belongs to the read.
        handing_over = float(np.median(idle)) if hungry and len(idle) else 0.0
        readers = _readers(spans) or 1
        seconds = (float(np.mean(durations)) + handing_over) / readers
        if not (spans.num_readers or hungry):
            return seconds, "upper"
        return seconds, "exact" if readers == 1 else "lower"
    if not spans.sees_waits:
        return step * echo_factor, "upper"
    if hungry:
        # Input that works ahead and still comes late arrives as fast as it can, and input that
        # doesn't costs what training waits for it. Where neither is known, that is the least.
        seconds = step if spans.works_ahead else starved_step
        return seconds * echo_factor, "lower" if spans.works_ahead is None else "exact"
    if spans.producers:
        window = np.array([[steps[0, 0], steps[-1, 1]]])
        slowest = max(float(overlap(merge(lane), window)[0]) for lane in spans.producers)
        return slowest / updates * echo_factor, "lower"
    # Training does not wait: reading takes no longer than the step, or waits would grow.
    return step * echo_factor, "upper"


def _unknown(spans: Spans, path: str | None, missing: tuple[str, ...]) -> StepBreakdown:
    nan = math.nan
    return StepBreakdown(
        steps=0,
        step_seconds=nan,
        wait_seconds=nan,
        upstream_seconds=nan,
        downstream_seconds=nan,
        num_readers=_readers(spans),
        backend=spans.backend,
        hardware=spans.hardware,
        missing=missing,
        path=path,
    )
