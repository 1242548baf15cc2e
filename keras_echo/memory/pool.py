"""Memory that serves one batch after the other.

The operating system hands out fresh memory page by page, when each is first written: with large
batches that takes as long as the copy itself.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

_ALIGNMENT = 64  # bytes; JAX on a CPU then takes an array as it is, without copying it
_MOST_IDLE = 4  # blocks of one size that wait for their next use
_IDLE_BYTES = 2**26  # of all blocks that wait,
_LARGEST_IDLE = 8  # or so many times the largest, if that is more


class Pool:
    """Arrays whose memory is used again as soon as nothing refers to it any more. Thread-safe.

    Memory of sizes that weren't asked for of late is given back, so that batches of many sizes
    don't add up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[int, deque[_Return]] = {}  # by size, the latest used last

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """An array of undefined values, contiguous, which nobody else sees, like `numpy.empty`."""
        dtype = np.dtype(dtype)
        if dtype.hasobject:
            return np.empty(shape, dtype)
        num_bytes = math.prod(shape) * dtype.itemsize
        with self._lock:
            idle = self._idle.pop(num_bytes, None)
            if idle is None:
                idle = deque(maxlen=_MOST_IDLE)
            self._idle[num_bytes] = idle
            if len(self._idle) * _MOST_IDLE > _LARGEST_IDLE:
                self._give_back()
        try:
            block = idle.pop().block
        except IndexError:
            block = _aligned(num_bytes)
        return np.asarray(_Lease(block, idle)).view(dtype).reshape(shape)

    def _give_back(self) -> None:
        held = {size: size * len(idle) for size, idle in self._idle.items()}
        excess = sum(held.values()) - max(_IDLE_BYTES, _LARGEST_IDLE * max(held))
        for size in list(held)[:-1]:
            if excess <= 0:
                return
            del self._idle[size]
            excess -= held[size]


class _Block(np.ndarray):
    """Memory, with its interface at hand: to make that takes as long as to copy 20 kB."""

    interface: dict[str, Any]


class _Lease:
    """What the arrays that see a block keep alive; with the last of them, the block is idle."""

    def __init__(self, block: _Block, idle: deque[_Return]) -> None:
        self.__array_interface__ = block.interface
        # Not by `__del__`: Ctrl-C that comes while Python code runs in there is lost.
        self._return = _Return(self, idle.append)
        self._return.block = block


class _Return(weakref.ref[_Lease]):
    """Brings a block back when its lease ends."""

    block: _Block


def _aligned(num_bytes: int) -> _Block:
    block = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    begin = -block.ctypes.data % _ALIGNMENT
    aligned = block[begin : begin + num_bytes].view(_Block)
    aligned.interface = aligned.__array_interface__
    return aligned
