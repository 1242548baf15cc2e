"""XSpace -> spans: which event of which profiler means what."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_echo._messages import printable
from keras_echo.profiling import names
from keras_echo.profiling.measuring.inputs import (
    TORCH_LOADER,
    find_reads,
    find_waits,
    noted_reading,
    noted_upstream,
    works_ahead,
)
from keras_echo.profiling.measuring.plane import Plane
from keras_echo.profiling.measuring.spans import Spans, merge, no_spans
from keras_echo.profiling.measuring.steps import (
    marked_steps,
    ready_step_seconds,
    unmarked_steps,
    without_ends,
)
from keras_echo.profiling.traces import xspace

if TYPE_CHECKING:
    from keras_echo.profiling.measuring.spans import Array

_MOST_SHOWN = 100  # characters of a device's name
_MOST_KINDS = 10  # of devices
_JAX_EXECUTORS = ("tf_XLAPjRtCpuClient", "tf_XLAEigen")
# Lines of a device plane that repeat, summed up, what other lines hold.
_DERIVED_LINES = ("Steps", "XLA Modules", "Framework", "Source", "XLA TraceMe", "Launch Stats")


def extract(space: Any) -> Spans:
    """Picks the spans of a training window out of a trace.

    Args:
        space: The XSpace message.

    Returns:
        The spans; times count from the earliest line of the trace.
    """
    base = min((line.timestamp_ns for p in space.planes for line in p.lines), default=0)
    hosts = [p for p in space.planes if p.name == names.HOST_PLANE]
    host = Plane(hosts[0] if hosts else xspace.new().planes.add(), base)
    devices = [Plane(p, base) for p in space.planes if _is_accelerator(p)]
    backend = _backend(space, host)
    line, steps = marked_steps(host)
    waits, fetch = find_waits(host, line)
    if line is None:
        steps = unmarked_steps(host, waits)
    elif backend == "torch" and fetch is not None and fetch.startswith(TORCH_LOADER):
        waits = without_ends(host, line, steps, waits)
    device_busy = [merge(_device_spans(device)) for device in devices]
    device_seen = any(len(spans) for spans in device_busy)
    busy = merge(np.concatenate(device_busy)) if device_seen else _executor_spans(host, backend)
    reads, num_readers = find_reads(host)
    produce = host.ids(lambda name: name == "PrefetchProduce")
    producers = tuple(s for x in host.lines if produce and len(s := host.spans(x, produce)))
    return Spans(
        backend=backend,
        hardware=_hardware(devices),
        steps=steps,
        marked=line is not None,
        ready_step_seconds=ready_step_seconds(host),
        waits=waits,
        sees_waits=fetch is not None,
        reads=reads,
        num_readers=num_readers,
        upstream=noted_upstream(host),
        reading=noted_reading(host),
        producers=producers,
        busy=busy,
        asynchronous=device_seen or backend == "jax",
        works_ahead=bool(reads) or works_ahead(host, waits, fetch),
        device_seen=device_seen,
    )


def _is_accelerator(plane: Any) -> bool:
    return bool(re.match(r"/device:(GPU|TPU)", plane.name)) and len(plane.lines) > 0


def _backend(space: Any, host: Plane) -> str:
    for p in space.planes:
        if p.name == names.METADATA_PLANE:
            known = xspace.stats_of(p, p.stats)
            for version, backend in ((names.JAX_VERSION, "jax"), (names.TORCH_VERSION, "torch")):
                if version in known:
                    return backend
    signs = (
        ("tensorflow", ("EagerExecute", "FunctionRun", "ExecutorState::")),
        ("jax", ("PjitFunction(", "ThunkExecutor::")),
        ("torch", ("aten::",)),
    )
    for backend, starts in signs:
        if host.names_start_with(starts):
            return backend
    return "unknown"


def _hardware(devices: list[Plane]) -> str:
    kinds: Counter[str] = Counter()
    for device in devices:
        kind = device.own_stats().get("device_type_string") or device.plane.name.split(":")[1]
        kinds[printable(str(kind)[:_MOST_SHOWN])] += 1
    shown = kinds.most_common(_MOST_KINDS)
    return ", ".join(f"{count} x {kind}" for kind, count in shown) or "CPU"


def _device_spans(device: Plane) -> Array:
    lines = [line for line in device.lines if not line.name.startswith(_DERIVED_LINES)]
    operations = [line for line in lines if line.name == "XLA Ops"]
    # Copies of the next batch to the device are input, not computation.
    ids = device.ids(lambda name: "memcpyh2d" not in name.lower() and "HtoD" not in name)
    return device.all_spans(operations or lines, ids)


def _executor_spans(host: Plane, backend: str) -> Array:
    if backend == "jax":
        return merge(host.all_spans(x for x in host.lines if x.name.startswith(_JAX_EXECUTORS)))
    if backend == "tensorflow":
        ids = host.ids(lambda name: name == "ExecutorState::Process")
        lines = (line for line in host.lines if not line.name.startswith("tf_data"))
        return merge(host.all_spans(lines, ids))
    return no_spans()
