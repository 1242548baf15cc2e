"""What a source is.

A source knows in which order it is to be read and how one read is done, not who does it or when:
`reads` lists the reads, `read` does one of them, on whatever thread or in whatever process.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from keras_echo._messages import expected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keras_echo.reading.stream import Barrier, Bookmark, Fresh, Position, Read


class Parallelism(NamedTuple):
    """How a source wants to be read: by how many readers, of which kind, how far ahead."""

    workers: int
    use_multiprocessing: bool
    max_queue_size: int


class Source(Protocol):
    """What `EchoingPyDataset` reads from. With processes, it is pickled."""

    @property
    def length(self) -> int | None:
        """Batches in a pass, or None if it is unknown or endless."""

    @property
    def parallelism(self) -> Parallelism:
        """How the source wants to be read."""

    @property
    def lends(self) -> bool:
        """Whether somebody may keep, and change, the memory of the batches that it reads."""

    @property
    def is_sequential(self) -> bool:
        """Whether its batches can only be read one after the other."""

    @property
    def no_cache(self) -> tuple[str, str] | None:
        """Why its batches can't be kept by the index of a read, and what to do; None if they can.

        The reason continues the sentence "cache must be None for".
        """

    @property
    def unseeded(self) -> object | None:
        """What draws the order of its batches so that nobody can have it again, if that is known.

        It continues the sentence "Received:".
        """

    def can_go_back_to(self, position: Position) -> bool:
        """Whether the batch there, once read, would be the same now."""

    def reads(
        self,
        start: Position,
        first: tuple[Position, ...],
        seed: int,
        bookmarks: tuple[Bookmark, ...] = (),
    ) -> Iterator[Read | Barrier]:
        """Yields the reads of the positions `first`, in ascending order, then of all from `start`.

        The same seed yields the same reads.

        Args:
            start: See above.
            first: See above.
            seed: Of all that is random.
            bookmarks: What is known of the source's state, before these or at them: one for each
                of their passes at most.
        """

    def read(self, read: Read) -> Fresh:
        """Does one read. What the source raises leaves with a note that names the index."""

    def position_of(self, read: Read) -> Position:
        """The position of a read that was tried."""

    def index_of(self, position: Position, seed: int) -> int:
        """By which number the source knows the batch at a position; for messages."""

    def index_now(self, read: Read) -> int:
        """The number of the batch that a read is at; in a sequence it passes others on its way."""


@contextmanager
def named(index: int) -> Iterator[None]:
    """Lets what the source raises pass as it is, with a note that names the index.

    Raises:
        RuntimeError: In place of StopIteration, which would pass for the end of the batches.
    """
    note = f"keras_echo was reading batch {index} of the source."
    try:
        yield
    except StopIteration as error:
        raised = RuntimeError("The source raised StopIteration.")
        raised.add_note(note)
        raise raised from error
    except BaseException as error:
        error.add_note(note)
        raise


def empty(source: object) -> str:
    """The message for a source without batches."""
    return expected(
        "source",
        "yield at least one batch in each pass",
        source,
        "Check the data's path and filters; a callable must return a new iterator at each call",
    )
