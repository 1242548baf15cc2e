"""XSpace -> spans: which event of which profiler means what."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_echo.profiling import names, xspace
from keras_echo.profiling.plane import Plane
from keras_echo.profiling.spans import Spans, merge, no_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keras_echo.profiling.spans import Array

    Marked = tuple[Any, Array]

_PROFILED_BATCH = re.compile(r"Profiled batch( \d+)?$")
_TORCH_STEP = re.compile(r"ProfilerStep#\d+$")
_TF_FETCH = re.compile(r"IteratorGetNext\w*::DoCompute$")
_TORCH_FETCH = re.compile(r"enumerate\(DataLoader\)#_\w+\.__next__$")
# What Keras calls to get a batch, and to read one on a worker thread, as Python tracers spell it.
_PYTHON_FETCH = re.compile(r"\$data_adapter_utils\.py:\d+ get_(jax|numpy)_iterator$")
_PYTHON_READ = re.compile(r"\$py_dataset_adapter\.py:\d+ get_index$")
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
    line, steps = _marked_steps(host)
    waits, fetch = _waits(host, line)
    if line is None:
        steps = _unmarked_steps(host, waits)
    device_busy = [merge(_device_spans(device)) for device in devices]
    device_seen = any(len(spans) for spans in device_busy)
    busy = merge(np.concatenate(device_busy)) if device_seen else _executor_spans(host, backend)
    reads, num_readers = _reads(host)
    produce = host.ids(lambda name: name == "PrefetchProduce")
    producers = tuple(s for x in host.lines if produce and len(s := host.spans(x, produce)))
    return Spans(
        backend=backend,
        hardware=_hardware(devices),
        steps=steps,
        marked=line is not None,
        ready_step_seconds=_ready_step_seconds(host),
        waits=waits,
        sees_waits=fetch is not None,
        reads=reads,
        num_readers=num_readers,
        producers=producers,
        busy=busy,
        asynchronous=device_seen or backend == "jax",
        works_ahead=_works_ahead(fetch, bool(reads or producers)),
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
        kinds[str(kind)] += 1
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.items()) or "CPU"


def _marked_steps(host: Plane) -> Marked | tuple[None, Array]:
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


def _ready_step_seconds(host: Plane) -> float | None:
    ids = host.ids(lambda name: name == names.READY_STEPS)
    for line in host.lines if ids else ():
        for event in host.events(line, ids):
            stats = host.stats(event)
            seconds, steps = stats.get(names.SECONDS), stats.get(names.NUM_STEPS)
            if isinstance(seconds, float) and isinstance(steps, float):
                return seconds / steps if 0 < seconds < 1e9 and steps >= 1 else None
    return None


def _waits(host: Plane, step_line: Any) -> tuple[Array, str | None]:
    """Finds the waits for a batch, and the name of the event that shows them, if one does."""
    # TensorFlow's own event comes first: there Keras asks our dataset for batches on another
    # thread, ahead of time, and what that thread waits is no wait of the training.
    fetches = host.all_spans(host.lines, host.ids(_TF_FETCH.match))
    if len(fetches):
        return fetches, "IteratorGetNext"
    lines = host.lines if step_line is None else [step_line]
    wanted: tuple[Callable[[str], Any], ...] = (
        lambda name: name == names.WAIT,
        _TORCH_FETCH.match,
        _PYTHON_FETCH.match,
    )
    for wants in wanted:
        ids = host.ids(wants)
        found = max((host.spans(line, ids) for line in lines), key=len, default=no_spans())
        if len(found):
            return found, host.plane.event_metadata[min(ids)].name
    stage = host.stat_ids(names.INPUT_STAGE)
    if stage and step_line is not None:
        staged = [e for e in step_line.events if any(s.metadata_id in stage for s in e.stats)]
        if staged:
            # Stages of one pipeline nest: each fetch counts once.
            return merge(host.times(step_line, staged, len(staged))), names.INPUT_STAGE
    return no_spans(), None


def _works_ahead(fetch: str | None, seen: bool) -> bool | None:
    if seen or (fetch and "_MultiProcessingDataLoader" in fetch):
        return True
    return False if fetch and "_SingleProcessDataLoader" in fetch else None


def _unmarked_steps(host: Plane, waits: Array) -> Array:
    """Takes each step from one fetch to the next, or from one dispatch to the next."""
    starts = waits[:, 0]
    if len(starts) < 3:
        # Calls of a jitted function; a call may show twice, nested.
        best = 0.0
        for key in host.ids(lambda name: name.startswith("PjitFunction(")):
            for line in host.lines:
                calls = merge(host.spans(line, frozenset((key,))))
                total = float(np.sum(calls[:, 1] - calls[:, 0]))
                if len(calls) >= 3 and total > best:
                    best, starts = total, calls[:, 0]
    return np.column_stack((starts[:-1], starts[1:])) if len(starts) >= 3 else no_spans()


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


def _reads(host: Plane) -> tuple[tuple[Array, ...], int | None]:
    ids = host.ids(lambda name: name == names.READ) or host.ids(_PYTHON_READ.match)
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


def _whole(value: object) -> int:
    # TraceMe keeps whole numbers, but a stat that was a string on its way stays one.
    try:
        return min(max(int(str(value)), 0), 1 << 20)
    except ValueError:
        return 0
