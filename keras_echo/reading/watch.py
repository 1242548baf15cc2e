"""Who is told what readers and their consumer do."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class Doing(Protocol):
    """A task that is being done."""

    compute_seconds: float  # for which a processor worked on it in another process
    is_dropped: bool  # whether it took too long: then it is no read


class Watch(Protocol):
    """Who is told what readers and consumer do. All but `reading` is called under a lock."""

    def reading(self) -> AbstractContextManager[Doing]:
        """Makes the context in which a task is done."""

    def held(self, share: float) -> None:
        """From now on, this share of the readers can do nothing before the consumer takes more."""

    def missed(self) -> None:
        """The consumer asked for a result, and it wasn't ready."""

    def took(self) -> None:
        """The consumer has a result."""

    def retried(self) -> None:
        """A task failed and is to be tried again."""


class Unwatched:
    """Tells nobody; see `Watch`."""

    compute_seconds = 0.0
    is_dropped = False

    def reading(self) -> AbstractContextManager[Doing]:
        """See `Watch`."""
        return nullcontext(self)

    def held(self, share: float) -> None:
        """See `Watch`."""

    def missed(self) -> None:
        """See `Watch`."""

    def took(self) -> None:
        """See `Watch`."""

    def retried(self) -> None:
        """See `Watch`."""
