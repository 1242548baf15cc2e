"""When a read has taken too long, and what is said then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_echo._messages import expected

if TYPE_CHECKING:
    from keras_echo.reading.source import Source
    from keras_echo.reading.stream import Read


class ReadTimeout:
    """How long each batch of a source may take; see `keras_echo.reading.attempt.TimeLimit`.

    Args:
        source: What is read.
        seconds: For one batch. A read that passes others on its way has as long for each.
    """

    def __init__(self, source: Source, seconds: float) -> None:
        self._source = source
        self.seconds = seconds

    def step(self, read: Read) -> object:
        """See `TimeLimit`."""
        return self._source.index_now(read)

    def error(self, read: Read, seconds: float) -> TimeoutError:
        """See `TimeLimit`."""
        return TimeoutError(
            expected(
                f"Reading batch {self._source.index_now(read)} of the source",
                f"end within read_timeout={self.seconds:g} seconds",
                NoBatch(seconds),
                "Look whether the storage can be reached, pass a larger read_timeout, or have it "
                "read again with on_error=keras_echo.Retry()",
            )
        )


class NoBatch:
    """What was received instead of a batch."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __repr__(self) -> str:
        return f"no batch after {self._seconds:.1f} seconds"
