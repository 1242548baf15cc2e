"""The fresh batches that a pipeline uses."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from keras_echo.memory.batch import checked, num_bytes_of
from keras_echo.reading.prefetcher import StoppedError
from keras_echo.reading.stream import EmptyPassError, Fresh, Position

if TYPE_CHECKING:
    from keras_echo.metering import Meter


class FreshBatches(Iterator[Fresh]):
    """Fresh batches of a valid structure; of the reads that fail, some may be skipped.

    Args:
        upstream: All reads.
        most_failures: How many may fail in a row; the last of them raises.
        meter: Counts the reads that are skipped.
        num_unneeded: How many of `upstream`, which come first, are read only to be compared.

    Attributes:
        position: The place of the last fresh batch; None before the first one.
    """

    def __init__(
        self,
        upstream: Iterator[Fresh],
        *,
        most_failures: int,
        meter: Meter,
        num_unneeded: int = 0,
    ) -> None:
        self._upstream = upstream
        self._num_unneeded = num_unneeded
        self._most_failures = most_failures
        self._num_failures = 0  # in a row
        self._meter = meter
        self.position: Position | None = None

    def __next__(self) -> Fresh:
        self._pass_unneeded()
        while True:
            try:
                fresh = next(self._upstream)
            except (EmptyPassError, StoppedError):
                raise
            except Exception as error:
                self._num_failures += 1
                if self._num_failures >= self._most_failures:
                    raise
                self._skip(error)
            else:
                checked(
                    fresh.batch,
                    "A batch of the source",
                    "Return whole batches from the source, in the form that Model.fit() takes",
                )
                self._meter.fresh(num_bytes_of(fresh.batch))
                self._num_failures = 0
                self.position = fresh.position
                return fresh

    def again(self) -> Fresh | None:
        """The next of the batches that a state holds; None if it can't be read and is skipped."""
        self._pass_unneeded()
        return self._next_or_none()

    def _pass_unneeded(self) -> None:
        while self._num_unneeded:
            self._num_unneeded -= 1
            self._next_or_none()

    def _next_or_none(self) -> Fresh | None:
        try:
            return next(self._upstream)
        except (EmptyPassError, StoppedError):
            raise
        except Exception as error:
            if self._most_failures == 1:
                raise
            self._skip(error)
            return None

    def _skip(self, error: Exception) -> None:
        if self._meter.num_skipped == 0:
            notes = " ".join(getattr(error, "__notes__", []))
            warnings.warn(
                f"A read failed and was skipped: {error!r}. {notes} Further ones are skipped "
                "without a warning; stats().skipped_reads counts them.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._meter.skipped()
