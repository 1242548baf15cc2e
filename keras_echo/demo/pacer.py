"""When each byte may leave a server whose bandwidth is limited."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK_SECONDS = 0.01
_SLACK_SECONDS = 0.02


class Pacer:
    """Gives every byte of the server its moment, whichever connection it leaves by.

    Each chunk's deadline follows from the one before, never from the clock after a sleep: a sleep
    that lasts too long, or a client that asks for its next file a little late, is made up for by
    the next chunk. What a longer silence left unused (more than 20 ms) is lost, as on a wire.

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
        self._deadline = -math.inf

    def wait(self, count: int) -> None:
        """Returns when `count` more bytes have had the time they need."""
        with self._lock:
            start = max(self._deadline, self._clock() - _SLACK_SECONDS)
            deadline = self._deadline = start + count / self._rate
        delay = deadline - self._clock()
        if delay > 0:
            self._sleep(delay)
