"""Reads and writes XSpace, the public file format of profiler traces (`*.xplane.pb`).

With or without TensorFlow in the process: the schema is this package's own.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_echo._messages import expected
from keras_echo.profiling.traces import limits
from keras_echo.profiling.traces.limits import TraceError
from keras_echo.profiling.traces.schema import space_class

if TYPE_CHECKING:
    from collections.abc import Iterable


def new() -> Any:
    """Returns an empty XSpace message."""
    return space_class()()


def parse(data: bytes, source: str = "the trace") -> Any:
    """Turns the bytes of an `*.xplane.pb` file into an XSpace message.

    Args:
        data: The bytes.
        source: What an error message calls them.

    Returns:
        The message; it has at least one plane.

    Raises:
        TraceError: The bytes are no trace, only a part of one, or more than `limits` lets pass.
    """
    from google.protobuf.message import (  # type: ignore[import-untyped, unused-ignore]
        DecodeError,
    )

    remedy = "Record the trace anew, and stop the profiler before the process ends"
    if not data:
        raise TraceError(expected(source, "be a profiler trace", "an empty file", remedy))
    limits.check(source, (data,), limits.xspace_memory)
    space = new()
    try:
        space.ParseFromString(data)
    except DecodeError:
        got = f"{len(data)} bytes that are damaged, cut off or of another format"
        raise TraceError(expected(source, "be a profiler trace", got, remedy)) from None
    # Bytes of other formats may parse: protobuf keeps fields that it does not know.
    if not any(plane.name for plane in space.planes):
        got = f"{len(data)} bytes without a named plane"
        raise TraceError(expected(source, "be a profiler trace", got, remedy))
    _check_counts(space, source)
    return space


def _check_counts(space: Any, source: str) -> None:
    """Raises TraceError if there is more than can be looked at."""
    lines = [line for plane in space.planes for line in plane.lines]
    tables = [(plane.event_metadata, plane.stat_metadata) for plane in space.planes]
    for counted, number, most in (
        ("lines", len(lines), limits.MAX_LINES),
        ("events", sum(len(line.events) for line in lines), limits.MAX_EVENTS),
        ("names", sum(map(len, itertools.chain(*tables))), limits.MAX_NAMES),
    ):
        if number > most:
            raise limits.too_large(source, f"have at most {most} {counted}", number)


def read(path: str | os.PathLike[str]) -> Any:
    """Reads an `*.xplane.pb` file.

    Args:
        path: The file.

    Returns:
        The XSpace message.

    Raises:
        TraceError: The file cannot be read, or is no trace.
    """
    return parse(contents(path), str(path))


def contents(path: str | os.PathLike[str]) -> bytes:
    """Returns the bytes of a file.

    Args:
        path: The file.

    Returns:
        The bytes.

    Raises:
        TraceError: The file cannot be read, or is larger than `limits.MAX_BYTES`.
    """
    try:
        # A pipe would be waited for without end.
        if Path(path).exists() and not Path(path).is_file():
            raise OSError(errno.EINVAL, "no regular file")
        size = Path(path).stat().st_size
        if size > limits.MAX_BYTES:
            raise limits.too_large(str(path), f"be at most {limits.MAX_BYTES} bytes", size)
        return Path(path).read_bytes()
    except TraceError:
        raise
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


def unreadable(path: str | os.PathLike[str], error: Exception) -> TraceError:
    """Returns the error for a file or directory that the system refuses to read."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    remedy = "Give a path that exists and that you may read"
    return TraceError(expected(str(path), "be readable", reason, remedy))


def write(space: Any, path: str | os.PathLike[str]) -> None:
    """Writes an XSpace message so that nobody ever sees half a file.

    Args:
        space: The message.
        path: The file; one that exists is replaced.
    """
    target = Path(path)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        scratch.write_bytes(space.SerializeToString())
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def stat_value(plane: Any, stat: Any) -> Any:
    """Returns the value of a stat, strings that are kept by reference resolved."""
    kind = stat.WhichOneof("value")
    if kind is None:
        return None
    if kind == "ref_value":
        # `get` on a map of messages would add the key.
        ref = stat.ref_value
        known = ref < 2**63 and ref in plane.stat_metadata
        return plane.stat_metadata[ref].name if known else None
    return getattr(stat, kind)


def stats_of(plane: Any, stats: Iterable[Any]) -> dict[str, Any]:
    """Returns stats by name; those whose name is unknown are left out."""
    metadata = plane.stat_metadata
    return {
        metadata[stat.metadata_id].name: stat_value(plane, stat)
        for stat in stats
        if stat.metadata_id in metadata
    }


class PlaneBuilder:
    """Adds lines, events and stats to a plane, giving names the ids that the format wants."""

    def __init__(self, plane: Any) -> None:
        self._plane = plane
        self._events = {meta.name: key for key, meta in plane.event_metadata.items()}
        self._stats = {meta.name: key for key, meta in plane.stat_metadata.items()}

    @staticmethod
    def _id(known: dict[str, int], table: Any, name: str) -> int:
        key = known.get(name)
        if key is None:
            key = len(table) + 1
            while key in table:
                key += 1
            known[name] = key
            table[key].id = key
            table[key].name = name
        return key

    def line(self, line_id: int, name: str, timestamp_ns: int = 0) -> Any:
        """Adds an empty line, which stands for a thread or a stream."""
        return self._plane.lines.add(id=line_id, name=name, timestamp_ns=timestamp_ns)

    def event(self, line: Any, name: str, start_ps: int, duration_ps: int, **stats: Any) -> None:
        """Adds an event to a line; `start_ps` counts from the line's timestamp."""
        key = self._id(self._events, self._plane.event_metadata, name)
        event = line.events.add(metadata_id=key, offset_ps=start_ps, duration_ps=duration_ps)
        for stat, value in stats.items():
            self._set(event.stats.add(), stat, value)

    def stat(self, name: str, value: Any) -> None:
        """Adds a stat to the plane itself."""
        self._set(self._plane.stats.add(), name, value)

    def _set(self, stat: Any, name: str, value: Any) -> None:
        stat.metadata_id = self._id(self._stats, self._plane.stat_metadata, name)
        if isinstance(value, int):
            stat.int64_value = int(value)
        elif isinstance(value, float):
            stat.double_value = value
        else:
            stat.str_value = str(value)


def plane(space: Any, name: str) -> Any:
    """Returns the plane of that name, added where there is none."""
    for found in space.planes:
        if found.name == name:
            return found
    return space.planes.add(name=name)
