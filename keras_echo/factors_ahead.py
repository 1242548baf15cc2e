"""Which echoing factors acted on the uses that were made and that nobody has got yet.

Uses are made ahead of training where that takes time, and a changed factor acts on those that are
made from then on. So a stream goes on exactly from where it stood only if it is known how those
were made that it had made ahead there.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class FactorsAhead:
    """The factor with which each use is made. Thread-safe; one use is made at a time.

    Args:
        factor: Returns the factor in force.
        planned: The factors of the first uses, which a stream that was interrupted had made.
    """

    def __init__(self, factor: Callable[[], float], planned: tuple[float, ...]) -> None:
        self._factor = factor
        self._planned = deque(planned)
        self._made: deque[float] = deque()
        self._lock = threading.Lock()

    @contextmanager
    def making(self) -> Iterator[None]:
        """The context in which a use is made; one that isn't left by an exception counts."""
        with self._lock:
            is_planned = bool(self._planned)
            # Under the lock: whoever reads the factor in force, and then what was made with
            # others, misses nothing.
            self._made.append(self._planned.popleft() if is_planned else self._factor())
        try:
            yield
        except BaseException:
            with self._lock:
                factor = self._made.pop()
                if is_planned:
                    self._planned.appendleft(factor)
            raise

    def acting(self) -> float:
        """The factor of the use in the making."""
        return self._made[-1]

    def handed_out(self) -> float:
        """To be called when somebody gets the next use; returns its factor."""
        with self._lock:
            return self._made.popleft()

    def __iter__(self) -> Iterator[float]:
        """The factors of the next uses, before the factor in force acts."""
        with self._lock:
            return iter([*self._made, *self._planned])
