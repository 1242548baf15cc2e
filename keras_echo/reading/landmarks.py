"""What is known of places in the stream of fresh batches, to find them again.

A bookmark is the source's state at a place, from which it can be read on. A fingerprint tells
whether a batch that is read again is the one that it was.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from keras_echo.reading.stream import Position

if TYPE_CHECKING:
    from keras_echo.reading.stream import Bookmark, Fresh

    T = TypeVar("T", Bookmark, "Fingerprint")


class Fingerprint(NamedTuple):
    """What the batch at a place was like; see `keras_echo.reading.fingerprint`.

    Attributes:
        position: The place.
        digest: Equal for equal batches.
        is_loaded: Whether it comes from a saved state, so that what is read there now is to be
            compared with it.
    """

    position: Position
    digest: str
    is_loaded: bool = False


class Landmarks(NamedTuple):
    """What going on from a place needs to find it, and to know whether it did.

    Attributes:
        bookmarks: Where the source can be read from, for each pass that is needed; without one, a
            pass is read from its beginning.
        fingerprint: Of the first batch that is needed, or the last one before it in its pass.
    """

    bookmarks: tuple[Bookmark, ...] = ()
    fingerprint: Fingerprint | None = None


NO_LANDMARKS = Landmarks()


_NOWHERE = Position(-1, 0)


class Record:
    """The landmarks of the fresh batches that were taken, as far back as going on needs them.

    Args:
        known: What was known before.
    """

    def __init__(self, known: Landmarks) -> None:
        self._bookmarks = deque(known.bookmarks)
        self._fingerprints = deque(filter(None, [known.fingerprint]))

    def add(self, fresh: Fresh) -> None:
        """Adds what is known of the next fresh batch."""
        if fresh.bookmark is not None:
            self._bookmarks.append(fresh.bookmark)
        self._fingerprints.append(Fingerprint(fresh.position, fresh.fingerprint))

    def of(self, needed: tuple[Position, ...]) -> Landmarks:
        """The landmarks of the batches at `needed`, ascending; forgets those before them."""
        first = needed[0]
        fingerprint = _last(self._fingerprints, first)
        if fingerprint is not None and fingerprint.position.number != first.number:
            fingerprint = None
        first = fingerprint.position if fingerprint else first
        _last(self._bookmarks, first)
        if not self._bookmarks:
            return Landmarks((), fingerprint)
        first_of_passes = {each.number: each for each in (*needed[::-1], first)}
        last = {
            bookmark.position.number: bookmark
            for bookmark in self._bookmarks
            if bookmark.position <= first_of_passes.get(bookmark.position.number, _NOWHERE)
        }
        return Landmarks(tuple(last.values()), fingerprint)


def _last(known: deque[T], position: Position) -> T | None:
    """The last one at a place, or before it; those before that are forgotten."""
    while len(known) > 1 and known[1].position <= position:
        known.popleft()
    return known[0] if known and known[0].position <= position else None
