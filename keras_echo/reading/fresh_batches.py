"""The fresh batches that a pipeline uses."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from keras_echo.memory.batch import checked, num_bytes_of
from keras_echo.reading.prefetcher import StoppedError
from keras_echo.reading.skipped import Skipped, skipped_read
from keras_echo.reading.source import named
from keras_echo.reading.stream import EmptyPassError, Fresh, Position

if TYPE_CHECKING:
    from keras_echo.metering import Meter, SkippedRead
    from keras_echo.reading.batch_form import BatchForm
    from keras_echo.reading.on_error import Skip
    from keras_echo.reading.source import Source
    from keras_echo.reading.stream import Reads


class FreshBatches(Iterator[Fresh]):
    """Fresh batches of one form; of the reads that fail, some may be skipped.

    What a state holds is read once more first, by `again`.

    Args:
        upstream: All reads.
        source: What is read.
        seed: That of the reads.
        form: What the batches have in common.
        skip: Which reads may be skipped; None: none.
        most_failures: How many may fail in a row; the last of them raises.
        num_fresh: Fresh batches before these.
        skipped: The reads that were skipped before.
        meter: Counts the bytes of batches, and warns of the first read that is skipped.
        num_unneeded: How many of `upstream`, which come first, are read only to be compared.

    Attributes:
        position: The place of the last fresh batch; None before the first one.
    """

    def __init__(
        self,
        upstream: Reads,
        source: Source,
        seed: int,
        *,
        form: BatchForm,
        skip: Skip | None,
        most_failures: int,
        num_fresh: int,
        skipped: Skipped,
        meter: Meter,
        num_unneeded: int = 0,
    ) -> None:
        self._upstream = upstream
        self._source = source
        self._seed = seed
        self._form = form
        self._skip = skip
        self._num_unneeded = num_unneeded
        self._most_failures = most_failures
        self._num_failures = 0  # in a row
        self._num_fresh = num_fresh
        self._skipped = skipped
        self._skipped_ahead: deque[tuple[Position, SkippedRead]] = deque()
        self._meter = meter
        self.position: Position | None = None

    def __next__(self) -> Fresh:
        self._pass_unneeded()
        while True:
            try:
                fresh = self._read()
            except (EmptyPassError, StoppedError):
                raise
            except Exception as error:
                self._num_failures += 1
                if self._num_failures >= self._most_failures:
                    raise
                self._note(error)
            else:
                self._meter.fresh(num_bytes_of(fresh.batch))
                self._num_failures = 0
                self._num_fresh += 1
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
            return self._read()
        except (EmptyPassError, StoppedError):
            raise
        except Exception as error:
            self._note(error)
            return None

    def skipped_before(self, position: Position) -> Skipped:
        """The reads before a position that were skipped; no earlier one is asked for any more."""
        if self._skipped_ahead:
            passed = []
            while self._skipped_ahead and self._skipped_ahead[0][0] < position:
                passed.append(self._skipped_ahead.popleft()[1])
            self._skipped = self._skipped.plus(passed)
        return self._skipped

    def _read(self) -> Fresh:
        fresh = next(self._upstream)
        index = partial(self._source.index_of, fresh.position, self._seed)
        try:
            checked(
                fresh.batch,
                "A batch of the source",
                "Return whole batches from the source, in the form that Model.fit() takes",
            )
            self._form.check(fresh.batch, index)
        except ValueError:
            with named(index()):
                raise
        return fresh

    def _note(self, error: Exception) -> None:
        """Notes a read as skipped, if it may be.

        Raises:
            Exception: The error, if not.
        """
        read = self._upstream.last_task
        if self._skip is None or read is None:
            raise error
        num_skipped = self._skipped.num + len(self._skipped_ahead)
        num_reads = self._num_fresh + num_skipped
        if not self._skip.allows(num_skipped + 1, num_reads + 1):
            error.add_note(
                f"keras_echo has skipped {num_skipped} of {num_reads} reads, and may skip no more: "
                f"{self._skip}."
            )
            raise error
        if self._meter.num_skipped == 0:
            notes = " ".join(getattr(error, "__notes__", []))
            warnings.warn(
                f"A read failed and was skipped: {error!r}. {notes} Further ones are skipped "
                "without a warning; stats().skipped lists them.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._meter.skipped()
        position = self._source.position_of(read)
        index = self._source.index_of(position, self._seed)
        self._skipped_ahead.append((position, skipped_read(index, error)))
