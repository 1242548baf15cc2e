"""Finds the input side of a trace: waits for batches, reads, and stages that work ahead."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_echo.profiling import names
from keras_echo.profiling.measuring.reading import Reading
from keras_echo.profiling.measuring.result import Bound, Upstream
from keras_echo.profiling.measuring.spans import merge, no_spans, overlap, starts_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.profiling.measuring.plane import Plane
    from keras_echo.profiling.measuring.spans import Array

_TF_FETCH = re.compile(r"IteratorGetNext\w*::DoCompute$")
_TF_STAGE = re.compile(r"Iterator::")
# Stages of tf.data that have threads of their own, and the one that may hide threads of Python.
_TF_AHEAD = re.compile(r"Iterator::.*::(Prefetch|MapAndBatch|ParseExample|Parallel\w+)(\[\d+\])?$")
_TF_OPAQUE = re.compile(r"Iterator::.*::Generator$")
TORCH_LOADER = "enumerate(DataLoader)#"
"""How the name of the event begins that shows a fetch of PyTorch's DataLoader."""
_TORCH_FETCH = re.compile(r"enumerate\(DataLoader\)#_\w+\.__next__$")
# The rest is how Python tracers spell what Keras calls: JAX's `$file.py:1 name`, PyTorch's
# `path/file.py(1): name`. All data adapters of Keras hand out their batches through one of these.
_PYTHON_FETCH = re.compile(
    r"_adapter(_utils)?\.py[:(]\d+(\):)? get_(jax|numpy)_iterator$"
    r"|array_data_adapter\.py[:(]\d+(\):)? _get_iterator$"
)
_PYTHON_READ = re.compile(r"py_dataset_adapter\.py[:(]\d+(\):)? get_index$")
# The training thread reads a PyDataset without workers itself, else it takes from a queue.
_PYTHON_INLINE = re.compile(r"py_dataset_adapter\.py[:(]\d+(\):)? _(in)?finite_generator$")
_PYTHON_QUEUE = re.compile(r"py_dataset_adapter\.py[:(]\d+(\):)? _(in)?finite_enqueuer_generator$")


def find_waits(host: Plane, step_line: Any) -> tuple[Array, str | None]:
    """Finds the waits for a batch, and the name of the event that shows them, if one does.

    Args:
        host: The host's plane.
        step_line: The line of the training thread, where it is known.

    Returns:
        The waits, and the name.
    """
    # TensorFlow's own event comes first: there Keras asks our dataset for batches on another
    # thread, ahead of time, and what that thread waits is no wait of the training.
    fetches = host.all_spans(host.lines, host.ids(_TF_FETCH.match))
    if len(fetches):
        return fetches, "IteratorGetNext"
    lines = host.lines if step_line is None else [step_line]
    wanted: tuple[Callable[[str], Any], ...] = (
        lambda name: name == names.WAIT,
        _TORCH_FETCH.match,
        _PYTHON_FETCH.search,
    )
    for wants in wanted:
        ids = host.ids(wants)
        # Generators nest: each fetch counts once.
        found = max((merge(host.spans(line, ids)) for line in lines), key=len, default=no_spans())
        if len(found):
            return found, host.plane.event_metadata[min(ids)].name
    stage = host.stat_ids(names.INPUT_STAGE)
    if stage and step_line is not None:
        staged = [e for e in step_line.events if any(s.metadata_id in stage for s in e.stats)]
        if staged:
            # So do stages of one pipeline.
            return merge(host.times(step_line, staged, len(staged))), names.INPUT_STAGE
    return no_spans(), None


def works_ahead(host: Plane, waits: Array, fetch: str | None) -> bool | None:
    """Says whether reading goes on while a step runs; None where the trace cannot tell.

    Args:
        host: The host's plane.
        waits: The fetches.
        fetch: The name of the event that shows them.

    Returns:
        The answer.
    """
    if fetch == "IteratorGetNext":
        return _pipeline_works_ahead(host)
    if fetch and "_MultiProcessingDataLoader" in fetch:
        return True
    if host.ids(_PYTHON_QUEUE.search):
        return True
    if host.ids(_PYTHON_INLINE.search):
        return False
    if fetch and "_SingleProcessDataLoader" in fetch:
        # Keras hands everything to PyTorch through a DataLoader, also what threads have read
        # before. One that puts its batches together itself is read by the training thread.
        stacked = host.all_spans(host.lines, host.ids(lambda name: name == "aten::stack"))
        return False if np.mean(starts_in(stacked, waits) > 0) > 0.5 else None
    return None


def _pipeline_works_ahead(host: Plane) -> bool | None:
    """Says the same of tf.data: what do the threads that fetch spend their fetches on."""
    fetches, stages, ahead = (host.ids(x.match) for x in (_TF_FETCH, _TF_STAGE, _TF_AHEAD))
    lines = [line for line in host.lines if host.events(line, fetches)]
    if not any(host.events(line, stages) for line in lines):
        return None
    taken = [merge(host.spans(line, fetches)) for line in lines]
    queued = [
        overlap(merge(host.spans(line, ahead)), spans)
        for line, spans in zip(lines, taken, strict=True)
    ]
    total = sum(float(np.sum(spans[:, 1] - spans[:, 0])) for spans in taken)
    share = sum(float(np.sum(part)) for part in queued) / total if total > 0 else 0.0
    if share >= 0.9:
        return True
    return False if share == 0.0 and not host.ids(_TF_OPAQUE.match) else None


def find_reads(host: Plane) -> tuple[tuple[Array, ...], int | None]:
    """Finds the upstream reads, an array per thread, and how many can run at the same time."""
    ids = host.ids(lambda name: name == names.READ) or host.ids(_PYTHON_READ.search)
    own: list[Array] = []
    measured: list[Array] = []
    readers = 0
    for line in host.lines if ids else ():
        found = host.events(line, ids)
        if not found:
            continue
        spans = host.times(line, found, len(found))
        stats = [host.stats(event) for event in found]
        readers = max([readers, *(_whole(known.get(names.READERS)) for known in stats)])
        seconds = [known.get(names.SECONDS) for known in stats]
        if all(isinstance(value, float) and 0 <= value < 1e9 for value in seconds):
            spans[:, 1] = spans[:, 0] + np.array(seconds, dtype=np.float64)
            measured.append(spans)
        else:
            own.append(spans)
    # Reads that the dataset measured itself include those that the window cuts off, and are also
    # there where a worker thread annotated them: they count instead, not in addition.
    return tuple(measured or own), readers or None


def noted_upstream(host: Plane) -> Upstream | None:
    """Returns what a fresh batch costs, where the dataset noted it."""
    for stats in host.noted(names.UPSTREAM):
        seconds, held = stats.get(names.SECONDS), stats.get(names.HELD_FRACTION)
        if isinstance(seconds, float) and isinstance(held, float) and 0 < seconds < 1e9:
            bound: Bound = "exact" if stats.get(names.BOUND) == "exact" else "lower"
            return Upstream(seconds, bound, held)
    return None


def noted_reading(host: Plane) -> Reading | None:
    """Returns why a read takes as long as it does, where the dataset noted it."""
    known = map(Reading.from_stats, host.noted(names.READING))
    return next(filter(None, known), None)


def _whole(value: object) -> int:
    # TraceMe keeps whole numbers, but a stat that was a string on its way stays one.
    try:
        return min(max(int(str(value)), 0), 1 << 20)
    except ValueError:
        return 0
