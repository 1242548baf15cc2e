"""A plane of a trace with its event names at hand.

A trace holds up to a million events, of which a few hundred matter. Event names are kept once per
plane, so they are classified there, and only the events of the classes that matter are copied out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_echo.profiling.measuring.spans import by_start, no_spans
from keras_echo.profiling.traces import xspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from keras_echo.profiling.measuring.spans import Array


class Plane:
    """A plane with its event names at hand.

    Args:
        plane: The XPlane message.
        base_ns: The time that counts as 0.
    """

    def __init__(self, plane: Any, base_ns: int) -> None:
        self.plane = plane
        self.lines = list(plane.lines)
        self._base_ns = base_ns
        self._names = {key: meta.name for key, meta in plane.event_metadata.items()}

    def ids(self, wanted: Callable[[str], Any]) -> frozenset[int]:
        """Returns the ids of the event names that are wanted."""
        return frozenset(key for key, name in self._names.items() if wanted(name))

    def names_start_with(self, starts: tuple[str, ...]) -> bool:
        """Returns whether an event's name starts with one of these."""
        return any(name.startswith(starts) for name in self._names.values())

    def stat_ids(self, name: str) -> frozenset[int]:
        """Returns the ids of a stat name; none where no event can have such a stat."""
        return frozenset(k for k, meta in self.plane.stat_metadata.items() if meta.name == name)

    def stats(self, event: Any) -> dict[str, Any]:
        """Returns the stats of an event by name."""
        return xspace.stats_of(self.plane, event.stats)

    def own_stats(self) -> dict[str, Any]:
        """Returns the plane's stats by name."""
        return xspace.stats_of(self.plane, self.plane.stats)

    def events(self, line: Any, ids: frozenset[int]) -> list[Any]:
        """Returns the events of a line that have one of the ids, by start."""
        found = [event for event in line.events if event.metadata_id in ids] if ids else []
        return sorted(found, key=lambda event: event.offset_ps)

    def noted(self, name: str) -> Iterator[dict[str, Any]]:
        """Returns the stats of the events of that name, which say what no profiler sees."""
        ids = self.ids(lambda known: known == name)
        for line in self.lines if ids else ():
            yield from map(self.stats, self.events(line, ids))

    def times(self, line: Any, events: Iterable[Any], count: int) -> Array:
        """Returns the spans of events of a line, by start."""
        # The base is taken off as an integer: nanoseconds since 1970 don't fit a float.
        base = (line.timestamp_ns - self._base_ns) * 1e-9
        flat = (value for event in events for value in (event.offset_ps, event.duration_ps))
        spans = np.fromiter(flat, np.float64, 2 * count).reshape(-1, 2) * 1e-12
        spans[:, 0] += base
        spans[:, 1] = spans[:, 0] + np.maximum(spans[:, 1], 0.0)
        return by_start(spans)

    def spans(self, line: Any, ids: frozenset[int] | None = None) -> Array:
        """Returns the spans of a line that have one of the ids, or all of them."""
        if ids is None:
            return self.times(line, line.events, len(line.events))
        found = self.events(line, ids)
        return self.times(line, found, len(found))

    def all_spans(self, lines: Iterable[Any], ids: frozenset[int] | None = None) -> Array:
        """Returns the same for several lines together."""
        parts = [self.spans(line, ids) for line in lines]
        return by_start(np.concatenate(parts)) if parts else no_spans()
