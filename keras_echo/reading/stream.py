"""What flows between the stages: positions, reads, fresh batches, and the ends of passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.memory.batch import Batch


class Position(NamedTuple):
    """A place in the stream of fresh batches: batch `ordinal` of pass `number`, from 0."""

    number: int
    ordinal: int

    @property
    def next(self) -> Position:
        """The place after it, in the same pass."""
        return Position(self.number, self.ordinal + 1)


START = Position(0, 0)


class Bookmark(NamedTuple):
    """The state of a source at a place in the stream.

    Attributes:
        position: The place: whoever sets the state reads on with the batch there.
        state: The state as JSON; see `keras_echo.reading.state_json`.
    """

    position: Position
    state: Any


class Read(NamedTuple):
    """One read to do.

    Attributes:
        position: Its place in the stream; None means the next one, for sources read in sequence.
        index: What the source is asked for.
        bookmark: The last one at this place or before it, if the source has any.
    """

    position: Position | None
    index: Any = None
    bookmark: Bookmark | None = None


class Fresh(NamedTuple):
    """A batch that was read, and its place in the stream.

    Attributes:
        position: Its place.
        batch: The batch, which nobody changes any more; see `keras_echo.reading.ownership`.
        is_ours: Whether its memory was made for it by keras_echo, and may be written to.
        bookmark: The last one at this place or before it, if the source has any.
        fingerprint: Tells it from other batches; see `keras_echo.reading.fingerprint`.
    """

    position: Position
    batch: Batch
    is_ours: bool = True
    bookmark: Bookmark | None = None
    fingerprint: str = ""


class Reads(Protocol):
    """All reads, in their order."""

    @property
    def last_task(self) -> Any:
        """The read whose batch, or error, was the last; None if what failed was no read."""

    def __next__(self) -> Fresh:
        """The batch of the next read; raises what that raised."""


@dataclass(frozen=True)
class Barrier:
    """Stands between tasks, and is passed when the first result after it is asked for.

    All results before it were taken then, and no task after it is begun.

    Attributes:
        action: Called then. Whatever was copied to a worker process before is out of date.
    """

    action: Callable[[], object]


class EmptyPassError(ValueError):
    """A whole pass over the source yielded no batch."""


class AbandonedError(Exception):
    """Nobody waits for a read any more, since it took too long."""
