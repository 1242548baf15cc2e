"""Are the batches that are read again those that they were?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keras_echo._messages import expected
from keras_echo.reading.landmarks import Landmarks, Record
from keras_echo.reading.prefetcher import StoppedError
from keras_echo.reading.stream import Fresh

if TYPE_CHECKING:
    from keras_echo.reading.landmarks import Fingerprint
    from keras_echo.reading.stream import Position, Reads


class Recognition(Iterator[Fresh]):
    """Keeps the landmarks of what is read, and compares the first batch with one that was read.

    Args:
        upstream: All reads.
        known: The landmarks of the state that reading goes on from.
        sought: What the first batch is to be; None: nobody knows.
    """

    def __init__(self, upstream: Reads, known: Landmarks, sought: Fingerprint | None) -> None:
        self._upstream = upstream
        self._record = Record(known)
        self._sought = sought

    @property
    def last_task(self) -> Any:
        """See `Reads`."""
        return self._upstream.last_task

    def landmarks(self, needed: tuple[Position, ...]) -> Landmarks:
        """Those of the batches at `needed`, ascending, none before what was asked for last."""
        return self._record.of(needed)

    def __next__(self) -> Fresh:
        try:
            fresh = next(self._upstream)
        except StoppedError:
            raise  # the next try is the first again
        except Exception:
            self._sought = None
            raise
        sought, self._sought = self._sought, None
        self._record.add(fresh)
        # A pass that is shorter now has no batch at that place.
        if sought and (fresh.position, fresh.fingerprint) != (sought.position, sought.digest):
            warnings.warn(_another(sought.position), RuntimeWarning, stacklevel=2)
        return fresh


def _another(position: Position) -> str:
    return expected(
        f"Batch {position.ordinal} of pass {position.number} of the source",
        "be the one that it was when the state was taken, for training to resume exactly",
        "another batch",
        "Build the dataset with the same arguments, seed the source's order and its augmentation, "
        "and leave its data unchanged. As it is, training resumes at this place, and not with the "
        "batches that were missing",
    )
