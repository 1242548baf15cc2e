"""Whose memory is it? Answered where a batch leaves its source, for all that comes after.

What a source returns belongs to the source: it may be a view of its data, an entry of its cache, a
buffer that it fills again or shuffles in place. Batches are read ahead of training and wait for
their reuse, so they must not change meanwhile. A batch of which the source keeps the memory is
therefore copied; one that the source lets go of isn't.

Whether it lets go shows when its batch is dropped: memory that nobody else refers to is gone then.
So the first batch is always copied, and its memory watched.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_echo.memory.batch import copied, leaves_of, map_leaves
from keras_echo.memory.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.reading.stream import Fresh, Read

_PATIENCE = 4
"""Reads after which memory that is still there is kept: a generator's variables hold its last
batch until it has made the next one."""


class OwnMemory:
    """Reads a source, and copies what the source keeps. Thread-safe.

    Args:
        read: Does one read of the source.
    """

    def __init__(self, read: Callable[[Read], Fresh]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._empty = Pool().empty
        self._places: list[_Place] = []  # one for each leaf of a batch

    def __call__(self, read: Read) -> Fresh:
        """The batch that was read, in memory that doesn't change any more."""
        fresh = self._read(read)
        leaves = leaves_of(fresh.batch)
        with self._lock:
            while len(self._places) < len(leaves):
                self._places.append(_Place())
            keeps = [place.keeps(leaf) for place, leaf in zip(self._places, leaves, strict=False)]
        if not any(keeps):
            return fresh._replace(is_ours=False)
        copies = iter(keeps)
        batch = map_leaves(
            lambda leaf: copied(leaf, self._empty) if next(copies) else leaf, fresh.batch
        )
        return fresh._replace(batch=batch, is_ours=all(keeps))


class _Place:
    """One leaf of all batches of a source: whether the source keeps its memory."""

    def __init__(self) -> None:
        self._watched: deque[weakref.ref[Any]] = deque()  # memory of leaves that were copied
        self._has_let_go = False
        self._keeps = False

    def keeps(self, leaf: Any) -> bool:
        """Whether the source may still change this leaf."""
        if (
            self._has_let_go
            and not self._watched
            and type(leaf) is np.ndarray
            and leaf.base is None
        ):
            return False  # as below, without asking what needn't be asked
        if _is_constant(leaf):
            return False
        memory = _memory(leaf)
        if memory is None or self._keeps:
            return True
        self._has_let_go |= any(watched() is None for watched in self._watched)
        self._watched = deque(watched for watched in self._watched if watched() is not None)
        if len(self._watched) >= _PATIENCE:
            self._keeps = True
            self._watched.clear()
        elif not self._has_let_go or self._watched:
            self._watched.append(weakref.ref(memory))
        else:
            return False
        return True


def _root(leaf: Any) -> Any:
    """The array of which `leaf` is a view, or what stands in for it."""
    while isinstance(leaf, np.ndarray) and isinstance(leaf.base, np.ndarray):
        leaf = leaf.base
    return leaf


def _memory(leaf: Any) -> Any:
    """An object that lives as long as the memory of an array; None if none is known."""
    root = _root(leaf)
    if isinstance(root, np.ndarray) and root.base is not None:
        root = root.base
    if hasattr(root, "untyped_storage"):  # PyTorch has one such object for all views of a tensor
        return root.untyped_storage()
    return root if isinstance(root, np.ndarray) else None


def _is_constant(leaf: Any) -> bool:
    """Whether nobody can change the leaf, as with scalars and arrays of TensorFlow and JAX."""
    root = _root(leaf)
    if isinstance(root, np.ndarray):  # of these two, NumPy gets memory that can't be written to
        return root.base is not None and not root.flags.writeable
    return isinstance(root, _SCALARS) or type(root).__module__.startswith(("tensorflow", "jax"))


_SCALARS = (type(None), bool, int, float, str, bytes, np.generic)
