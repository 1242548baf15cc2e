"""XSpace -> the few spans that say what a training step and its input cost.

A trace holds up to a million events, of which a few hundred matter. Event names are kept once per
plane, so they are classified there, and only the events of the classes that matter are copied out.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_echo.profiling import names, xspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

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
    waits: Array = field(default_factory=no_spans)
    """The training thread, or the executor for it, waits for a batch."""
    sees_waits: bool = False
    """Whether the trace would show a wait if there were one."""
    reads: tuple[Array, ...] = ()
    """Upstream reads, an array per thread; the duration is that of the whole read."""
    num_readers: int | None = None
    """How many reads can run at the same time."""
    producers: tuple[Array, ...] = ()
    """Input stages that work ahead in a thread of their own (tf.data), an array per thread."""
    busy: Array = field(default_factory=no_spans)
    """The device, or the executor that stands for it, works; merged, so that none overlap."""
    asynchronous: bool = False
    """Whether the training thread may run ahead of the device."""
    device_seen: bool = False
    """Whether the trace has the events of an accelerator."""


_PROFILED_BATCH = re.compile(r"Profiled batch( \d+)?$")
_TORCH_STEP = re.compile(r"ProfilerStep#\d+$")
# What a training loop's thread calls to get a batch, as the profilers' Python tracer spells it.
_PYTHON_FETCH = re.compile(r"\$data_adapter_utils\.py:\d+ get_(jax|numpy)_iterator$")
_TORCH_FETCH = re.compile(r"enumerate\(DataLoader\)#_\w+\.__next__$")
_TF_FETCH = re.compile(r"IteratorGetNext\w*::DoCompute$")
_JAX_EXECUTORS = ("tf_XLAPjRtCpuClient", "tf_XLAEigen")
# Lines of a device plane that repeat, summed up, what other lines hold.
_DERIVED_LINES = ("Steps", "XLA Modules", "Framework", "Source", "XLA TraceMe", "Launch Stats")


def merge(spans: Array) -> Array:
    """Returns the union of spans as spans that neither touch nor overlap."""
    if not len(spans):
        return no_spans()
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    ends = np.maximum.accumulate(spans[:, 1])
    first = np.concatenate(([True], spans[1:, 0] > ends[:-1]))
    last = np.concatenate((first[1:], [True]))
    return np.column_stack((spans[first, 0], ends[last]))


class _Plane:
    """A plane with its event names at hand."""

    def __init__(self, plane: Any, base_ns: int) -> None:
        self.plane = plane
        self.lines = list(plane.lines)
        self._base_ns = base_ns
        self._names = {key: meta.name for key, meta in plane.event_metadata.items()}

    def ids(self, wanted: Callable[[str], Any]) -> frozenset[int]:
        return frozenset(key for key, name in self._names.items() if wanted(name))

    def name(self, event: Any) -> str:
        return self._names.get(event.metadata_id, "")

    def stats(self, event: Any) -> dict[str, Any]:
        return xspace.stats_of(self.plane, event.stats)

    def events(self, line: Any, ids: frozenset[int]) -> list[Any]:
        return [event for event in line.events if event.metadata_id in ids] if ids else []

    def times(self, line: Any, events: Iterable[Any], count: int) -> Array:
        # The base is taken off as an integer: nanoseconds since 1970 don't fit a float.
        base = (line.timestamp_ns - self._base_ns) * 1e-9
        flat = (value for event in events for value in (event.offset_ps, event.duration_ps))
        spans = np.fromiter(flat, np.float64, 2 * count).reshape(-1, 2) * 1e-12
        spans[:, 0] += base
        spans[:, 1] = spans[:, 0] + np.maximum(spans[:, 1], 0.0)
        return spans[np.argsort(spans[:, 0], kind="stable")]

    def spans(self, line: Any, ids: frozenset[int]) -> Array:
        found = self.events(line, ids)
        return self.times(line, found, len(found))

    def all_spans(self, lines: Iterable[Any], ids: frozenset[int] | None = None) -> Array:
        parts = [
            self.times(line, line.events, len(line.events))
            if ids is None
            else self.spans(line, ids)
            for line in lines
        ]
        return np.concatenate(parts) if parts else no_spans()


def extract(space: Any) -> Spans:
    """Picks the spans of a training window out of a trace.

    Args:
        space: The XSpace message.

    Returns:
        The spans; times count from the earliest line of the trace.
    """
    base = min((line.timestamp_ns for p in space.planes for line in p.lines), default=0)
    hosts = [_Plane(p, base) for p in space.planes if p.name == names.HOST_PLANE]
    devices = [_Plane(p, base) for p in space.planes if _is_accelerator(p)]
    host = hosts[0] if hosts else _Plane(xspace.new().planes.add(), base)
    backend = _backend(space, host)
    line, steps = _marked_steps(host)
    marked = line is not None
    waits, sees_waits = _waits(host, line)
    if not marked:
        steps = _unmarked_steps(host, waits)
    device_busy = [merge(_device_spans(device)) for device in devices]
    device_seen = any(len(spans) for spans in device_busy)
    busy = merge(np.concatenate(device_busy)) if device_seen else _executor_spans(host, backend)
    reads, num_readers = _reads(host)
    produce = host.ids(lambda name: name == "PrefetchProduce")
    return Spans(
        backend=backend,
        hardware=_hardware(devices),
        steps=steps,
        marked=marked,
        waits=waits,
        sees_waits=sees_waits,
        reads=reads,
        num_readers=num_readers,
        producers=tuple(s for x in host.lines if len(s := host.spans(x, produce))),
        busy=busy,
        asynchronous=device_seen or backend == "jax",
        device_seen=device_seen,
    )


def _is_accelerator(plane: Any) -> bool:
    return bool(re.match(r"/device:(GPU|TPU)", plane.name)) and len(plane.lines) > 0


def _backend(space: Any, host: _Plane) -> str:
    for p in space.planes:
        if p.name == names.METADATA_PLANE:
            known = xspace.stats_of(p, p.stats)
            for version, backend in ((names.JAX_VERSION, "jax"), (names.TORCH_VERSION, "torch")):
                if version in known:
                    return backend
    if host.ids(lambda n: n.startswith(("EagerExecute", "FunctionRun", "ExecutorState::"))):
        return "tensorflow"
    if host.ids(lambda n: n.startswith(("PjitFunction(", "ThunkExecutor::"))):
        return "jax"
    return "torch" if host.ids(lambda n: n.startswith("aten::")) else "unknown"


def _hardware(devices: list[_Plane]) -> str:
    kinds: Counter[str] = Counter()
    for device in devices:
        known = xspace.stats_of(device.plane, device.plane.stats)
        kind = known.get("device_type_string") or device.plane.name.split(":")[1]
        kinds[str(kind)] += 1
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.items()) or "CPU"


def _marked_steps(host: _Plane) -> tuple[Any, Array]:
    """Finds the line with the step markers, and the steps; the most specific marker wins."""

    def numbered(root: bool) -> Iterator[tuple[Any, Array]]:
        for line in host.lines:
            found = []
            for event in line.events:
                # Most events carry no such stat, and reading stats is slow: look at ids first.
                held = {stat.metadata_id for stat in event.stats}
                if held & number_ids and (not root or held & root_ids):
                    found.append(event)
            yield line, host.times(line, found, len(found))

    def named(wanted: Callable[[str], Any]) -> Iterator[tuple[Any, Array]]:
        ids = host.ids(wanted)
        return ((line, host.spans(line, ids)) for line in host.lines)

    stat_names = host.plane.stat_metadata.items()
    number_ids = {key for key, meta in stat_names if meta.name == names.STEP_NUM}
    root_ids = {key for key, meta in stat_names if meta.name == names.ROOT}
    candidates: list[Callable[[], Iterator[tuple[Any, Array]]]] = [
        lambda: named(lambda name: name == names.STEP),
        lambda: named(_PROFILED_BATCH.match),
        lambda: named(_TORCH_STEP.match),
    ]
    if number_ids:
        candidates += [lambda: numbered(True), lambda: numbered(False)]
    for candidate in candidates:
        line, steps = max(candidate(), key=lambda x: len(x[1]), default=(None, no_spans()))
        if len(steps):
            return line, steps
    return None, no_spans()


def _waits(host: _Plane, step_line: Any) -> tuple[Array, bool]:
    """Finds the waits for a batch; also whether the trace would show them at all."""
    # TensorFlow's own event comes first: there Keras asks our dataset for batches on another
    # thread, ahead of time, and what that thread waits is no wait of the training.
    fetches = host.all_spans(host.lines, host.ids(_TF_FETCH.match))
    if len(fetches):
        return merge_order(fetches), True
    lines = host.lines if step_line is None else [step_line]
    for wanted in (
        lambda name: name == names.WAIT,
        _TORCH_FETCH.match,
        _PYTHON_FETCH.match,
    ):
        ids = host.ids(wanted)
        found = max((host.spans(line, ids) for line in lines), key=len, default=no_spans())
        if len(found):
            return found, True
    stage = {
        key for key, meta in host.plane.stat_metadata.items() if meta.name == names.INPUT_STAGE
    }
    if stage and step_line is not None:
        staged = [e for e in step_line.events if any(s.metadata_id in stage for s in e.stats)]
        if staged:
            # Stages of one pipeline nest: each fetch counts once.
            return merge(host.times(step_line, staged, len(staged))), True
    return no_spans(), False


def merge_order(spans: Array) -> Array:
    """Returns spans sorted by start."""
    return spans[np.argsort(spans[:, 0], kind="stable")]


def _unmarked_steps(host: _Plane, waits: Array) -> Array:
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


def _device_spans(device: _Plane) -> Array:
    lines = [line for line in device.lines if not line.name.startswith(_DERIVED_LINES)]
    operations = [line for line in lines if line.name == "XLA Ops"]
    # Copies of the next batch to the device are input, not computation.
    ids = device.ids(lambda name: "memcpyh2d" not in name.lower() and "HtoD" not in name)
    return device.all_spans(operations or lines, ids)


def _executor_spans(host: _Plane, backend: str) -> Array:
    if backend == "jax":
        return merge(host.all_spans(x for x in host.lines if x.name.startswith(_JAX_EXECUTORS)))
    if backend == "tensorflow":
        ids = host.ids(lambda name: name == "ExecutorState::Process")
        lines = (line for line in host.lines if not line.name.startswith("tf_data"))
        return merge(host.all_spans(lines, ids))
    return no_spans()


def _reads(host: _Plane) -> tuple[tuple[Array, ...], int | None]:
    ids = host.ids(lambda name: name == names.READ)
    own: list[Array] = []
    measured: list[Array] = []
    readers = 0
    for line in host.lines if ids else ():
        found = host.events(line, ids)
        if not found:
            continue
        spans = host.times(line, found, len(found))
        found.sort(key=lambda event: event.offset_ps)
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
