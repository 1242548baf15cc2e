"""What is known of places in the stream of fresh batches, to find them again.

A bookmark is the source's state at a place, from which it can be read on. A fingerprint tells
whether a batch that is read again is the one that it was.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from keras_echo.reading.stream import Bookmark, Fresh, Position

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
        bookmark: Where the source can be read from; None: from the beginning of a pass.
        fingerprint: Of the first batch that is needed, or the last one before it in its pass.
    """

    bookmark: Bookmark | None = None
    fingerprint: Fingerprint | None = None


NO_LANDMARKS = Landmarks()


class Record:
    """The landmarks of the fresh batches that were taken, as far back as going on needs them.

    Args:
        known: What was known before.
    """

    def __init__(self, known: Landmarks) -> None:
        self._bookmarks = deque(filter(None, [known.bookmark]))
        self._fingerprints = deque(filter(None, [known.fingerprint]))

    def add(self, fresh: Fresh) -> None:
        """Adds what is known of the next fresh batch."""
        if fresh.bookmark is not None:
            self._bookmarks.append(fresh.bookmark)
        self._fingerprints.append(Fingerprint(fresh.position, fresh.fingerprint))

    def before(self, needed: Position) -> Landmarks:
        """The landmarks for going on with the batch at `needed`; forgets those before them."""
        fingerprint = _last(self._fingerprints, needed)
        if fingerprint is None or fingerprint.position.number != needed.number:
            return Landmarks(_last(self._bookmarks, needed))
        return Landmarks(_last(self._bookmarks, fingerprint.position), fingerprint)


def _last(known: deque[T], position: Position) -> T | None:
    """The last one at a place, or before it."""
    while len(known) > 1 and known[1].position <= position:
        known.popleft()
    return known[0] if known and known[0].position <= position else None
