"""The few spans of a trace that say what a training step and its input cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from keras_echo.profiling.measuring.reading import Reading
    from keras_echo.profiling.measuring.result import Upstream

    Array = NDArray[np.float64]


def no_spans() -> Array:
    """Returns an empty array of spans."""
    return np.empty((0, 2))


@dataclass(frozen=True)
class Spans:
    """What a window holds. Arrays of shape (n, 2) are (start, end) in seconds, sorted by start."""

    backend: str = "unknown"
    hardware: str = "CPU"
    steps: Array = field(default_factory=no_spans)
    """Calls of the train function. Without step markers: from one batch to the next."""
    marked: bool = False
    """Whether the trace has step markers."""
    ready_step_seconds: float | None = None
    """What an optimizer step took outside of the window, while batches lay ready."""
    waits: Array = field(default_factory=no_spans)
    """The training thread, or the executor for it, waits for a batch."""
    sees_waits: bool = False
    """Whether the trace would show a wait if there were one."""
    reads: tuple[Array, ...] = ()
    """Upstream reads, an array per thread; the duration is that of the whole read."""
    num_readers: int | None = None
    """How many reads can run at the same time."""
    upstream: Upstream | None = None
    """What a fresh batch costs, where the dataset noted it."""
    reading: Reading | None = None
    """Why a read takes as long as it does, where the dataset noted it."""
    producers: tuple[Array, ...] = ()
    """Input stages that work ahead in a thread of their own (tf.data), an array per thread."""
    busy: Array = field(default_factory=no_spans)
    """The device, or the executor that stands for it, works; merged, so that none overlap."""
    asynchronous: bool = False
    """Whether the training thread may run ahead of the device."""
    works_ahead: bool | None = None
    """Whether reading goes on while a step runs; None where the trace cannot tell."""
    device_seen: bool = False
    """Whether the trace has the events of an accelerator."""


def by_start(spans: Array) -> Array:
    """Returns spans sorted by start."""
    return spans[np.argsort(spans[:, 0], kind="stable")]


def merge(spans: Array) -> Array:
    """Returns the union of spans as spans that neither touch nor overlap."""
    if not len(spans):
        return no_spans()
    spans = by_start(spans)
    ends = np.maximum.accumulate(spans[:, 1])
    first = np.concatenate(([True], spans[1:, 0] > ends[:-1]))
    last = np.concatenate((first[1:], [True]))
    return np.column_stack((spans[first, 0], ends[last]))


def starts_in(spans: Array, windows: Array) -> Array:
    """Returns, for every window, how many spans start in it."""
    starts = np.sort(spans[:, 0])
    found = np.searchsorted(starts, windows)
    return (found[:, 1] - found[:, 0]).astype(np.float64)


def overlap(merged: Array, windows: Array) -> Array:
    """Returns, for every window, the time that merged spans cover."""
    if not len(merged):
        return np.zeros(len(windows))
    covered = np.zeros(2 * len(merged))
    covered[1::2] = merged[:, 1] - merged[:, 0]
    until = np.interp(windows.ravel(), merged.ravel(), np.cumsum(covered)).reshape(-1, 2)
    inside: Array = until[:, 1] - until[:, 0]
    return inside
