"""Which reads were skipped, up to a place of the stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keras_echo.metering import SkippedRead

if TYPE_CHECKING:
    from collections.abc import Iterable

_LISTED = 100
_LONGEST_ERROR = 500  # characters


@dataclass(frozen=True)
class Skipped:
    """Reads that failed and were skipped.

    Attributes:
        num: How many.
        last: The last 100 of them.
    """

    num: int = 0
    last: tuple[SkippedRead, ...] = ()

    def plus(self, reads: Iterable[SkippedRead]) -> Skipped:
        """These and further ones."""
        further = tuple(reads)
        return Skipped(self.num + len(further), (*self.last, *further)[-_LISTED:])


NONE_SKIPPED = Skipped()


def skipped_read(index: int, error: Exception) -> SkippedRead:
    """What is listed of a read that failed."""
    return SkippedRead(index, f"{type(error).__name__}: {error}"[:_LONGEST_ERROR])
