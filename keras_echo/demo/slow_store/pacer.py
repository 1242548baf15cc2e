"""When each byte may leave a server whose bandwidth is limited."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK_SECONDS = 0.01
_MOST_OVERSLEPT_SECONDS = 0.02
_HANDOVER_SECONDS = 0.003


class Pacer:
    """Gives every byte of the server its moment, whichever connection it leaves by.

    Each chunk's deadline follows from the one before, not from the clock after a sleep: a sleep
    that lasts too long (by up to 20 ms) is made up for by the next chunk, and so is a client that
    asks for its next file up to 3 ms late. What a longer silence left unused is lost, as on a wire.

    Args:
        bytes_per_second: The rate of all callers together.
        clock: Seconds that never go back.
        sleep: Waits for some seconds.
    """

    def __init__(
        self,
        bytes_per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.chunk = max(1, min(1 << 20, int(bytes_per_second * _CHUNK_SECONDS)))
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._deadline = self._last_return = clock()
        self._num_waiting = 0

    def wait(self, count: int) -> None:
        """Returns when `count` more bytes have had the time they need."""
        with self._lock:
            now, start = self._clock(), self._deadline
            if not self._num_waiting:
                start += max(0.0, now - self._last_return - _HANDOVER_SECONDS)
            start = max(start, now - _MOST_OVERSLEPT_SECONDS)
            deadline = self._deadline = start + count / self._rate
            self._num_waiting += 1
        delay = deadline - now
        if delay > 0:
            self._sleep(delay)
        with self._lock:
            self._num_waiting -= 1
            self._last_return = self._clock()
