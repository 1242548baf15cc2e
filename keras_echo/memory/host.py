"""Batches and examples that wait in the host's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keras_echo.memory.batch import Batch, copied
from keras_echo.memory.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable


class HostBatch:
    """A batch that waits in the host's memory and is copied for each use.

    Args:
        batch: The batch.
        is_ours: Whether its memory may be written to.
        empty: Makes the arrays of copies, of a shape and a dtype.
    """

    def __init__(
        self, batch: Batch, is_ours: bool, empty: Callable[..., np.ndarray] = np.empty
    ) -> None:
        self.batch = batch
        self.is_ours = is_ours
        self._empty = empty

    def use(self) -> Batch:
        """See `Waiting`."""
        return copied(self.batch, self._empty)


class HostMemory:
    """Rows in the host's memory.

    Args:
        like: An array with such rows.
        capacity: How many there is room for.
    """

    def __init__(self, like: np.ndarray, capacity: int) -> None:
        self._rows = np.empty((capacity, *like.shape[1:]), like.dtype)
        self._pool = Pool()

    def put(self, slots: np.ndarray, rows: np.ndarray) -> None:
        """See `Memory`."""
        if rows.dtype != self._rows.dtype:  # longer strings, which would be cut off
            self._rows = self._rows.astype(np.promote_types(rows.dtype, self._rows.dtype))
        self._rows[slots] = rows

    def gather(self, slots: np.ndarray) -> np.ndarray:
        """See `Memory`."""
        gathered = self._pool.empty((len(slots), *self._rows.shape[1:]), self._rows.dtype)
        # Any slot is in range, and to have that checked costs a tenth of the time.
        return np.take(self._rows, slots, axis=0, mode="clip", out=gathered)
