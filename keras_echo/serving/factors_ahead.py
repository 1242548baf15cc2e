"""Which echoing factors act on the uses that nobody has got yet.

Uses are made ahead of training where that takes time, and a changed factor acts on those that are
made from then on. So a stream goes on exactly from where it stood only if it is known how those
were made that it had made ahead there.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_echo.factor import EchoFactor


class FactorsAhead:
    """The factor of each use, settled when its making begins, or as planned. Thread-safe.

    One use is made at a time; uses have numbers, from 0.

    Args:
        factor: The factor in force.
        first: The number of the first use.
        planned: The factors of the first uses, which a stream that was interrupted had made.
    """

    def __init__(self, factor: EchoFactor, first: int = 0, planned: tuple[float, ...] = ()) -> None:
        self._factor = factor
        self._first = first
        self._settled = deque(planned)  # of the uses from the first one on
        self._lock = threading.Lock()
        self._acting = 1.0

    def settle(self, number: int) -> None:
        """Settles the factor of a use, whose making begins now."""
        with self._lock:
            place = number - self._first
            if place == len(self._settled):
                # Under the lock: whoever reads the factor in force, and then those that are
                # settled, misses nothing.
                self._settled.append(self._factor.value)
            self._acting = self._settled[place]

    def acting(self) -> float:
        """The factor of the use that is being made."""
        return self._acting

    def forget(self, number: int) -> None:
        """Forgets the factors of the uses before this one: they were used."""
        with self._lock:
            while self._first < number and self._settled:
                self._settled.popleft()
                self._first += 1

    def since(self, number: int) -> tuple[float, ...]:
        """The factors of the next uses from this one on, before the factor in force acts."""
        with self._lock:
            return tuple(islice(self._settled, max(0, number - self._first), None))
