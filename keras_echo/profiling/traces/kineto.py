"""PyTorch's traces (Chrome format, written by Kineto) -> XSpace.

TensorBoard's Profile tab reads XSpace only, so a window of torch.profiler is converted: threads
become lines of the plane `/host:CPU`, streams of a GPU lines of `/device:GPU:<n>`.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_echo._messages import expected
from keras_echo.profiling import names
from keras_echo.profiling.traces import limits, xspace
from keras_echo.profiling.traces.limits import TraceError
from keras_echo.profiling.traces.xspace import PlaneBuilder

if TYPE_CHECKING:
    import os

SUFFIXES = (".json", ".json.gz")
"""How the files end that torch.profiler writes; other files end so as well."""

_HANDLER_SUFFIXES = (".pt.trace.json", ".pt.trace.json.gz")
_HEAD_BYTES = 1 << 18
_PIECE_BYTES = 1 << 16
_GZIP = b"\x1f\x8b"
_EVENTS = re.compile(rb'"traceEvents"\s*:')
# Traces that TensorFlow and JAX write beside an XSpace are of Chrome's format too, without these.
_MARKS = re.compile(
    rb'"schemaVersion"\s*:|"cat"\s*:\s*"'
    rb'(cpu_op|user_annotation|python_function|kernel|gpu_mem\w+|cuda_\w+)"'
)

# Copies of host annotations on the device's lines; the host's own are there already.
_MIRRORED = frozenset({"gpu_user_annotation"})
_DEVICE = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
_HOST = frozenset({"cpu_op", "user_annotation", "cuda_runtime", "cuda_driver", "python_function"})
_LIMIT_PS = 2**62
_STEP = re.compile(r"ProfilerStep#(\d+)$")
_MOST_ENCODED = 1000  # characters; `encode` makes less


def encode(name: str, stats: dict[str, Any]) -> str:
    """Puts stats into a name, in the way of TraceMe: torch's annotations have a name only."""
    if not stats:
        return name
    return f"{name}#{','.join(f'{key}={value}' for key, value in stats.items())}#"


def decode(name: str) -> tuple[str, dict[str, Any]]:
    """Takes stats out of a name that `encode` made; other names are returned as they are."""
    if len(name) > _MOST_ENCODED or not name.endswith("#") or name.count("#") < 2:
        step = _STEP.match(name)
        if step and len(step[1]) < 19:
            return name, {names.STEP_NUM: int(step[1]), names.ROOT: 1}
        return name, {}
    bare, _, packed = name[:-1].partition("#")
    stats: dict[str, Any] = {}
    for part in packed.split(","):
        key, separator, value = part.partition("=")
        if not separator or not key:
            return name, {}
        stats[key] = int(value) if re.fullmatch(r"-?\d{1,18}", value) else value
    return bare, stats


def convert(trace: Any, source: str = "the trace", version: str = "unknown") -> Any:
    """Turns a Chrome trace of torch.profiler into an XSpace message.

    Args:
        trace: The decoded JSON.
        source: What an error message calls it.
        version: PyTorch's version, which the trace itself doesn't tell.

    Returns:
        The message.

    Raises:
        TraceError: It is no trace, one without any event that has a duration, or one with more
            events or threads than `limits` lets pass.
    """
    listed = trace.get("traceEvents") if isinstance(trace, dict) else None
    listed = listed if isinstance(listed, list) else []
    events = [event for event in listed if _usable(event)]
    if not events:
        remedy = "Record the trace anew, and let one profiler run at a time"
        got = "no events" if isinstance(trace, dict) else "another kind of JSON"
        raise TraceError(expected(source, "be a torch.profiler trace with events", got, remedy))
    if len(events) > limits.MAX_EVENTS:
        raise limits.too_large(source, f"have at most {limits.MAX_EVENTS} events", len(events))
    first = min(event["ts"] for event in events)
    space = xspace.new()
    planes = {names.HOST_PLANE: xspace.plane(space, names.HOST_PLANE)}
    builders = {name: PlaneBuilder(plane) for name, plane in planes.items()}
    threads = _thread_names(listed)
    lines: dict[tuple[str, str], Any] = {}
    for event in events:
        name, stats = decode(_text(event["name"]))
        args = event.get("args")
        args = args if isinstance(args, dict) else {}
        where = names.HOST_PLANE
        if event["cat"] in _DEVICE:
            device = args.get("device", 0)
            where = _device_plane(device if isinstance(device, int) else 0)
        if where not in planes:
            planes[where] = space.planes.add(name=where)
            builders[where] = PlaneBuilder(planes[where])
        key = (where, _text(event.get("tid")))
        if key not in lines:
            if len(lines) >= limits.MAX_LINES:
                must = f"have events of at most {limits.MAX_LINES} threads and streams"
                raise limits.too_large(source, must, len(lines) + 1)
            title = threads.get(key[1], f"thread {key[1]}")
            title = (
                title
                if where == names.HOST_PLANE
                else f"Stream #{_text(args.get('stream', key[1]))}"
            )
            lines[key] = builders[where].line(len(planes[where].lines) + 1, title)
        start = min(round((event["ts"] - first) * 1e6), _LIMIT_PS)
        builders[where].event(
            lines[key], name, start, min(round(event["dur"] * 1e6), _LIMIT_PS), **stats
        )
    _describe(space, trace, first, version)
    return space


def is_trace(path: str | os.PathLike[str]) -> bool:
    """Says whether a file is a trace of torch.profiler, by its name or else by its beginning.

    Args:
        path: The file.

    Returns:
        The answer; for a file that cannot be read, its name decides.
    """
    if str(path).endswith(_HANDLER_SUFFIXES):
        return True
    try:
        # Opening a pipe would wait without end.
        if not Path(path).is_file():
            return False
        with Path(path).open("rb") as file:
            zipped = file.read(2) == _GZIP
            file.seek(0)
            head = (gzip.GzipFile(fileobj=file) if zipped else file).read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        return False
    return bool(_EVENTS.search(head) and _MARKS.search(head))


def read(path: str | os.PathLike[str]) -> Any:
    """Reads a file that torch.profiler wrote, gzipped or not, as XSpace.

    Args:
        path: The file.

    Returns:
        The XSpace message.

    Raises:
        TraceError: The file cannot be read, is no such trace, or more than `limits` lets pass.
    """
    data = xspace.contents(path)
    try:
        # Gone through twice, so that nothing is kept of what turns out to be too large.
        pieces = iter(partial(_opened(data).read, _PIECE_BYTES), b"")
        limits.check(str(path), pieces, limits.json_memory)
        trace = json.loads(_opened(data).read())
    except TraceError:
        raise
    except (ValueError, EOFError, OSError, zlib.error, RecursionError):
        remedy = "Record the trace anew, and stop the profiler before the process ends"
        got = "an empty file" if not data else "damaged or foreign content"
        raise TraceError(expected(str(path), "be a torch.profiler trace", got, remedy)) from None
    return convert(trace, str(path))


def _opened(data: bytes) -> gzip.GzipFile | io.BytesIO:
    """The JSON in a file's bytes, gzipped or not."""
    file = io.BytesIO(data)
    return gzip.GzipFile(fileobj=file) if data[:2] == _GZIP else file


def _usable(event: Any) -> bool:
    if not isinstance(event, dict) or event.get("ph") != "X":
        return False
    if not isinstance(event.get("name"), str) or not isinstance(event.get("cat"), str):
        return False
    if event["cat"] in _MIRRORED or event["cat"] not in _HOST | _DEVICE:
        return False
    args = event.get("args")
    # An event that the end of the window cut off shows a duration that is too short.
    if isinstance(args, dict) and args.get("finished") is False:
        return False
    return all(
        isinstance(event.get(key), (int, float)) and 0 <= event[key] < _LIMIT_PS
        for key in ("ts", "dur")
    )


def _text(value: Any) -> str:
    """Returns text that UTF-8 can hold: JSON can spell half a character.

    Of what is neither text nor a number, it is only said what it is: there may be no end to it.
    """
    known = isinstance(value, (str, int, float))
    return str(value if known else type(value).__name__).encode(errors="replace").decode()


def _device_plane(number: object) -> str:
    return f"/device:GPU:{_text(number)}"


def _thread_names(listed: list[Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for event in listed:
        if isinstance(event, dict) and event.get("name") == "thread_name":
            args = event.get("args")
            if isinstance(args, dict) and isinstance(args.get("name"), str):
                found[_text(event.get("tid"))] = _text(args["name"])
    return found


def _describe(space: Any, trace: dict[str, Any], first: float, version: str) -> None:
    """Adds when the trace was taken and by what, and the name of the machine."""
    about = PlaneBuilder(xspace.plane(space, names.METADATA_PLANE))
    about.stat(names.TORCH_VERSION, version)
    base = trace.get("baseTimeNanoseconds", 0)
    start = (base if isinstance(base, int) else 0) + int(first * 1000)
    if 0 <= start < 2**63:
        environment = PlaneBuilder(xspace.plane(space, names.ENVIRONMENT_PLANE))
        environment.stat(names.START_TIME, start)
    if isinstance(trace.get("host_name"), str):
        space.hostnames.append(_text(trace["host_name"]))
    properties = trace.get("deviceProperties")
    kinds = {
        _device_plane(known.get("id", number)): known["name"]
        for number, known in enumerate(properties if isinstance(properties, list) else ())
        if isinstance(known, dict) and isinstance(known.get("name"), str)
    }
    for plane in space.planes:
        if plane.name in kinds:
            PlaneBuilder(plane).stat("device_type_string", _text(kinds[plane.name]))
