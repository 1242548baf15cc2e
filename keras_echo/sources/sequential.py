"""Sources that are read in sequence, one pass after the other."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from keras_echo.sources.base import Parallelism, empty, named
from keras_echo.stream import START, EmptyPassError, Fresh, Position, Read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from keras_echo.batches import Batch


class IterableSource:
    """Anything that makes an iterator of batches for each pass: read in sequence, by one reader.

    Args:
        open_pass: Makes the iterator of a new pass.
        length: Batches in a pass, if known.
    """

    is_sequential = True
    parallelism = Parallelism(workers=1, use_multiprocessing=False, max_queue_size=10)

    def __init__(self, open_pass: Callable[[], Iterable[Batch]], length: int | None = None) -> None:
        self.length = length
        self._open_pass = open_pass
        if length == 0:
            raise EmptyPassError(empty(open_pass))

    def reads(self, start: Position, first: tuple[Position, ...], seed: int) -> Iterator[Read]:
        cursor = _Cursor(self._open_pass)
        for position in (*first, start):
            yield Read(position, cursor)
        yield from itertools.repeat(Read(None, cursor))

    def read(self, read: Read) -> Fresh:
        cursor: _Cursor = read.index
        if read.position is not None:
            cursor.seek(read.position)
        return cursor.read()


class _Cursor:
    """Walks through the passes of an iterable source."""

    def __init__(self, open_pass: Callable[[], Iterable[Batch]]) -> None:
        self._open_pass = open_pass
        self._iterator: Iterator[Batch] | None = None
        self._next = START
        self._error: Exception | None = None

    def seek(self, position: Position) -> None:
        """Moves to a position; what lies before it in its pass is read and dropped."""
        if self._iterator is None or self._next > position or self._next.number != position.number:
            self._open(position.number)
        while self._next < position and self._advance() is not None:
            pass

    def read(self) -> Fresh:
        """Reads the next batch, the first one of a new pass where a pass ends."""
        fresh = self._advance()
        if fresh is None and self._next.ordinal > 0:
            self._open(self._next.number + 1)
            fresh = self._advance()
        if fresh is None:
            raise EmptyPassError(empty(self._open_pass)) from self._error
        return fresh

    def _open(self, number: int) -> None:
        self._iterator = iter(self._open_pass())
        self._next = Position(number, 0)

    def _advance(self) -> Fresh | None:
        assert self._iterator is not None, "seek() comes first"
        try:
            with named(self._next.ordinal):
                batch = next(self._iterator)
        except StopIteration:
            return None
        except Exception as error:
            self._error = error
            raise
        fresh = Fresh(self._next, batch)
        self._next = self._next.next
        return fresh
