"""Finds the training steps of a trace: by their markers, or by what every step must do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_echo.profiling import names
from keras_echo.profiling.measuring.spans import merge, no_spans, starts_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keras_echo.profiling.measuring.plane import Plane
    from keras_echo.profiling.measuring.spans import Array

    Marked = tuple[Any, Array]

# Keras's TensorBoard callback.
_PROFILED_BATCH = re.compile(r"Profiled batch( \d+)?$")
_TORCH_STEP = re.compile(r"ProfilerStep#\d+$")
# Gradients are what training computes and validation doesn't.
_GRADIENT = re.compile(r"\bgradient_tape/|^autograd::engine::")


def marked_steps(host: Plane) -> Marked | tuple[None, Array]:
    """Finds the line with the step markers, and the steps; the most specific marker wins."""
    number, root = host.stat_ids(names.STEP_NUM), host.stat_ids(names.ROOT)

    def named(wanted: Callable[[str], Any]) -> Iterator[Marked]:
        ids = host.ids(wanted)
        return ((line, host.spans(line, ids)) for line in host.lines)

    def numbered(roots: bool) -> Iterator[Marked]:
        for line in host.lines if number else ():
            found = []
            for event in line.events:
                # Most events carry no such stat: ids are compared, values never read.
                held = {stat.metadata_id for stat in event.stats}
                if held & number and (not roots or held & root):
                    found.append(event)
            yield line, host.times(line, found, len(found))

    candidates: tuple[Callable[[], Iterator[Marked]], ...] = (
        lambda: named(lambda name: name == names.STEP),
        lambda: named(_PROFILED_BATCH.match),
        lambda: named(_TORCH_STEP.match),
        lambda: numbered(roots=True),
        lambda: numbered(roots=False),
    )
    for candidate in candidates:
        line, steps = max(candidate(), key=lambda x: len(x[1]), default=(None, no_spans()))
        if line is not None and len(steps):
            return line, steps
    return None, no_spans()


def without_ends(host: Plane, line: Any, steps: Array, fetches: Array) -> Array:
    """Leaves out the fetches of a DataLoader that find it empty, after which nothing is computed.

    Args:
        host: The host's plane.
        line: The line of the training thread.
        steps: The marked steps.
        fetches: The fetches, by start.

    Returns:
        Those that brought a batch, as far as can be told.
    """
    if not len(fetches) or not len(steps):
        return fetches
    work = host.all_spans(host.lines, host.ids(_GRADIENT.search))
    if not len(work):
        # Nothing is trained here.
        work = host.spans(line, host.ids(lambda name: name.startswith("aten::")))
    last = max(float(np.max(steps[:, 1])), float(fetches[-1, 1]))
    after = np.column_stack((fetches[:, 1], np.append(fetches[1:, 0], last)))
    empty = starts_in(work, after) == 0
    if 2 * np.sum(empty) > np.sum(~empty):
        # Several batches are fetched before they are computed on: only the last of a step can end.
        step_of = np.searchsorted(steps[:, 0], fetches[:, 0], side="right")
        empty &= np.append(step_of[1:] != step_of[:-1], True)
    return fetches if np.all(empty) else fetches[~empty]


def unmarked_steps(host: Plane, waits: Array) -> Array:
    """Takes each step from one fetch to the next, or from one dispatch to the next.

    Args:
        host: The host's plane.
        waits: The fetches; those of a validation and of Keras's peeks may be among them.

    Returns:
        The steps; none where the trace shows too little.
    """
    calls = _jax_calls(host)
    starts = waits[:, 0] if len(waits) >= 3 else calls[:, 0]
    if len(starts) < 3:
        return no_spans()
    # The last fetch has no end, but what follows it says whether it was for training.
    spans = np.column_stack((starts, np.append(starts[1:], np.inf)))
    gradients = host.all_spans(host.lines, host.ids(_GRADIENT.search))
    for work in (calls, gradients):
        trained = starts_in(work, spans) > 0
        # Before a fetch that is not for training lie the end of an epoch and its callbacks.
        steps = spans[:-1][trained[:-1] & trained[1:]]
        if len(steps):
            return steps
    return spans[:-1]


def _jax_calls(host: Plane) -> Array:
    """Returns the calls of the jitted function that trains, as far as can be told."""
    best, most = no_spans(), (False, 0.0)
    wanted = host.ids(lambda name: name.startswith("PjitFunction("))
    for line in host.lines:
        by_name: dict[int, list[Any]] = {}
        for event in host.events(line, wanted):
            by_name.setdefault(event.metadata_id, []).append(event)
        for key, found in by_name.items():
            # Keras and most others call it something with "train"; else it takes the most time.
            # Not in total, which compilation would decide.
            named = "train" in host.plane.event_metadata[key].name
            # A call may show twice, nested.
            calls = merge(host.times(line, found, len(found))) if len(found) >= 3 else no_spans()
            if len(calls) >= 3:
                time = len(calls) * float(np.median(calls[:, 1] - calls[:, 0]))
                if (named, time) > most:
                    best, most = calls, (named, time)
    return best


def ready_step_seconds(host: Plane) -> float | None:
    """Returns what a step took while batches lay ready, where that was noted."""
    for stats in host.noted(names.READY_STEPS):
        seconds, steps = stats.get(names.SECONDS), stats.get(names.NUM_STEPS)
        if isinstance(seconds, float) and isinstance(steps, float):
            return seconds / steps if 0 < seconds < 1e9 and steps >= 1 else None
    return None
