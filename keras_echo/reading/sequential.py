"""Sources that are read in sequence, one pass after the other."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from keras_echo.reading.source import Parallelism, empty, named
from keras_echo.reading.state_json import from_json, to_json
from keras_echo.reading.stream import (
    START,
    AbandonedError,
    Bookmark,
    EmptyPassError,
    Fresh,
    Position,
    Read,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from keras_echo.memory.batch import Batch

_END: Any = object()  # of a pass


class IterableSource:
    """Anything that makes an iterator of batches for each pass: read in sequence, by one reader.

    A place in a pass counts what its iterator was asked for, failures included, so that going on
    after a failure, or in another process, finds the same batches.

    An iterator with `get_state` and `set_state` is asked for its state before each batch, and a new
    one goes on from there. All others are read up to the place.

    Args:
        open_pass: Makes the iterator of a new pass.
        length: Batches in a pass, if known.
        before_pass: Called with the number of a pass before it is opened.
        unseeded: See `keras_echo.reading.source.Source`.
    """

    is_sequential = True
    lends = True
    parallelism = Parallelism(workers=1, use_multiprocessing=False, max_queue_size=10)
    no_cache = (
        "a source that is read in sequence, as its batches have no index",
        "Pass a keras.utils.PyDataset, or cache inside of the source, as with tf.data's cache()",
    )

    def __init__(
        self,
        open_pass: Callable[[], Iterable[Batch]],
        length: int | None = None,
        before_pass: Callable[[int], object] = lambda number: None,
        unseeded: object | None = None,
    ) -> None:
        self.length = length
        self.unseeded = unseeded
        self._open_pass = open_pass
        self._before_pass = before_pass
        self._begin: tuple[Bookmark, ...] = ()  # of the first pass, before anybody took a batch
        if length == 0:
            raise EmptyPassError(empty(open_pass))

    def can_go_back_to(self, position: Position) -> bool:
        return True

    def reads(
        self,
        start: Position,
        first: tuple[Position, ...],
        seed: int,
        bookmarks: tuple[Bookmark, ...] = (),
    ) -> Iterator[Read]:
        cursor = _Cursor(self._open, self.length, bookmarks or self._begin)
        for position in (*first, start):
            yield Read(position, _Turn(cursor, position))
        while True:
            yield Read(None, _Turn(cursor))

    def read(self, read: Read) -> Fresh:
        turn: _Turn = read.index
        fresh = turn.cursor.read(turn)
        if fresh.position == START and fresh.bookmark and not self._begin:
            self._begin = (fresh.bookmark,)
        return fresh

    def position_of(self, read: Read) -> Position:
        turn: _Turn = read.index
        assert turn.position is not None
        return turn.position

    def index_of(self, position: Position, seed: int) -> int:
        return position.ordinal

    def index_now(self, read: Read) -> int:
        turn: _Turn = read.index
        return turn.cursor.at.ordinal

    def _open(self, number: int) -> Iterator[Batch]:
        self._before_pass(number)
        return iter(self._open_pass())


@dataclass
class _Turn:
    """One read: of the batch at its position, or of the next one that had no turn yet.

    The first try settles the position, so that another try reads the same batch.
    """

    cursor: _Cursor
    position: Position | None = None
    was_tried: bool = False


class _Cursor:
    """Walks through the passes of an iterable source, for one reader at a time.

    A reader that was dropped, since the iterator is stuck, may still be inside of it: it keeps its
    walk to itself, and the next reader begins another one.
    """

    def __init__(
        self,
        open_pass: Callable[[int], Iterator[Batch]],
        length: int | None,
        bookmarks: tuple[Bookmark, ...],
    ) -> None:
        self._open_pass = open_pass
        self._begin_walk = partial(_Walk, open_pass, length, bookmarks)
        self._lock = threading.Lock()
        self._walk = self._begin_walk()
        self._next = START  # the first place that had no turn

    @property
    def at(self) -> Position:
        """Where the walk is."""
        return self._walk.at

    def read(self, turn: _Turn) -> Fresh:
        """Reads the batch of a turn; where its pass is over, the first one of the next pass.

        Raises:
            AbandonedError: If another reader has begun meanwhile.
        """
        walk = self._begin(turn)
        try:
            place = turn.position or self._next
            for position in (place, Position(place.number + 1, 0)):
                self._settle(turn, position, walk)
                if (fresh := walk.read(position)) is not None:
                    return fresh
            raise EmptyPassError(empty(self._open_pass)) from walk.failure
        finally:
            walk.is_busy = False

    def _begin(self, turn: _Turn) -> _Walk:
        with self._lock:
            if self._walk.is_busy:
                self._walk = self._begin_walk()
            if turn.was_tried:
                self._walk.told_at = None  # who asks again is told again
            turn.was_tried = True
            self._walk.is_busy = True
            return self._walk

    def _settle(self, turn: _Turn, position: Position, walk: _Walk) -> None:
        with self._lock:
            if walk is not self._walk:
                raise AbandonedError
            turn.position = position
            self._next = max(self._next, position.next)


class _Walk:
    """An iterator of one pass after the other, and how far it is.

    Attributes:
        at: The place that the iterator is asked for, or is to be asked for next.
        failure: Of the iterator's last step.
        told_at: The last failure that was raised.
        is_busy: Whether a reader is on it.
    """

    def __init__(
        self,
        open_pass: Callable[[int], Iterator[Batch]],
        length: int | None,
        bookmarks: tuple[Bookmark, ...],
    ) -> None:
        self._open_pass = open_pass
        self._length = length
        self._given = bookmarks
        self._noted: list[Bookmark] = []  # in the pass that is open: the first, and the last
        self._iterator: Iterator[Batch] | None = None
        self.at = START
        self.failure: Exception | None = None
        self.told_at: Position | None = None
        self.is_busy = False

    def read(self, position: Position) -> Fresh | None:
        """The batch at a position, or None if its pass is over before.

        What lies before it is read and dropped, failures too: they were skipped, or are raised for
        whom needs them. A failure may end an iterator, as it ends a generator. Then the pass is
        opened again, and is over if it ends there again.
        """
        has_opened = self._is_elsewhere(position)
        if has_opened:
            self._open(position)
        while True:
            assert self._iterator is not None
            if self.failure is None:
                self._note()
            at = self.at
            try:
                with named(at.ordinal):
                    batch = next(self._iterator, _END)
            except Exception as error:
                self.failure = error
                if at == position:
                    self.told_at = at
                    raise
                continue
            finally:
                self.at = at.next
            if batch is _END:
                self._iterator = None
                if self.failure is None or at.ordinal == self._length:
                    return None
                if self.told_at != (failed_at := Position(at.number, at.ordinal - 1)):
                    self.told_at = failed_at
                    raise self.failure from None
                if has_opened:
                    return None
                has_opened = True
                self._open(position)
                continue
            self.failure = None
            if at == position:
                return Fresh(at, batch, bookmark=self._noted[-1] if self._noted else None)

    def _is_elsewhere(self, position: Position) -> bool:
        return self._iterator is None or self.at.number != position.number or self.at > position

    def _open(self, position: Position) -> None:
        """Opens the pass of a position, as near before it as can be."""
        self._iterator = None
        self.at = begin = Position(position.number, 0)
        with named(0):
            iterator: Any = self._open_pass(position.number)
            known = [*self._given, *self._noted] if _has_state(iterator) else []
            known = [each for each in known if begin <= each.position <= position]
            self._noted = known[-1:]
            for bookmark in self._noted:
                iterator.set_state(from_json(bookmark.state))
                begin = bookmark.position
        self._iterator, self.at = iterator, begin
        self.failure = None

    def _note(self) -> None:
        """Notes the state of the iterator, if it has one at this place."""
        iterator: Any = self._iterator
        if _has_state(iterator):
            with named(self.at.ordinal):
                state = iterator.get_state()
            if state is not None:
                self._noted[1:] = [Bookmark(self.at, to_json(state))]


def _has_state(iterator: Any) -> bool:
    return hasattr(iterator, "get_state") and hasattr(iterator, "set_state")
