"""How many bytes a place may hold, and who holds them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


class Budget:
    """Gives bytes away until they are used up. Thread-safe.

    Args:
        most_bytes: How many there are.
        held: Who holds some already, and how many. They may be more than there are: then nobody
            gets any.
    """

    def __init__(self, most_bytes: int, held: dict[Hashable, int] | None = None) -> None:
        self._most_bytes = most_bytes
        self._held = dict(held or {})
        self._lock = threading.Lock()
        self.num_bytes = sum(self._held.values())

    def reserve(self, holder: Hashable, num_bytes: int) -> bool:
        """Gives `num_bytes` to a holder that has none yet, if so many are left; says whether."""
        with self._lock:
            if holder in self._held or self.num_bytes + num_bytes > self._most_bytes:
                return False
            self._held[holder] = num_bytes
            self.num_bytes += num_bytes
            return True

    def give_back(self, holder: Hashable) -> None:
        """Takes back what a holder has, if anything."""
        with self._lock:
            self.num_bytes -= self._held.pop(holder, 0)
