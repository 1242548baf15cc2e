"""Are the batches that are read again those that they were?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from keras_echo._messages import expected
from keras_echo.reading.landmarks import Landmarks, Record
from keras_echo.reading.stream import Fresh

if TYPE_CHECKING:
    from keras_echo.reading.landmarks import Fingerprint
    from keras_echo.reading.stream import Position


class Recognition(Iterator[Fresh]):
    """Keeps the landmarks of what is read, and compares once with those of a saved state.

    Args:
        upstream: All reads.
        known: The landmarks of the state that reading goes on from.
    """

    def __init__(self, upstream: Iterator[Fresh], known: Landmarks) -> None:
        self._upstream = upstream
        self._record = Record(known)
        self._sought: Fingerprint | None = None
        if known.fingerprint is not None and known.fingerprint.is_loaded:
            self._sought = known.fingerprint

    def landmarks(self, needed: tuple[Position, ...]) -> Landmarks:
        """Those of the batches at `needed`, ascending, none before what was asked for last."""
        return self._record.of(needed)

    def __next__(self) -> Fresh:
        fresh = next(self._upstream)
        self._record.add(fresh)
        if self._sought is not None:
            self._compare(fresh, self._sought)
        return fresh

    def _compare(self, fresh: Fresh, sought: Fingerprint) -> None:
        is_there = fresh.position == sought.position
        is_over = fresh.position.number > sought.position.number  # its pass is shorter now
        if is_there or is_over:
            self._sought = None
        if is_over or (is_there and fresh.fingerprint != sought.digest):
            warnings.warn(_another(sought.position), RuntimeWarning, stacklevel=2)


def _another(position: Position) -> str:
    return expected(
        f"Batch {position.ordinal} of pass {position.number} of the source",
        "be the one that it was when the state was taken, for training to resume exactly",
        "another batch",
        "Build the dataset with the same arguments, seed the source's order and its augmentation, "
        "and leave its data unchanged. As it is, training resumes at this place, and not with the "
        "batches that were missing",
    )
