"""Fingerprints of batches: is what was read again the batch that it was?"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from xxhash import xxh3_64

from keras_echo.memory.batch import leaves_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keras_echo.memory.batch import Batch
    from keras_echo.reading.stream import Fresh, Read

_NUM_PIECES = 16
_PIECE_BYTES = 2**10


class Fingerprinting:
    """Stands between readers and what they read: gives each batch its fingerprint.

    Args:
        through: What else stands there, after it.
    """

    def __init__(
        self, through: Callable[[Read, Callable[[Read], Fresh]], Fresh] | None = None
    ) -> None:
        self._through = through or (lambda read, do: do(read))

    def __call__(self, read: Read, do: Callable[[Read], Fresh]) -> Fresh:
        """The batch of a read, with its fingerprint."""
        fresh = self._through(read, do)
        return fresh._replace(fingerprint=fingerprint_of(fresh.batch))


def fingerprint_of(batch: Batch) -> str:
    """Tells a batch from others by shapes, dtypes and at most 16 KiB of the numbers of each leaf.

    Of leaves whose numbers don't lie on the host, or that are neither dense nor of a fixed width,
    shape and dtype count alone. Equal batches have equal fingerprints, however they lie in memory.
    """
    sums = xxh3_64()
    for leaf in leaves_of(batch):
        sums.update(
            f"{getattr(leaf, 'shape', None)} {_name(getattr(leaf, 'dtype', None))};".encode()
        )
        if (array := _on_host(leaf)) is not None:
            for piece in _pieces(array):
                sums.update(piece.tobytes())
    return sums.hexdigest()


_name = cache(str)  # of a dtype, which NumPy makes anew each time


def _on_host(leaf: Any) -> np.ndarray | None:
    """The numbers of a leaf as an array; None if they aren't to be had, or would have to travel."""
    if not isinstance(leaf, np.ndarray):
        if "cpu" not in str(getattr(leaf, "device", None)).lower():
            return None
        try:
            leaf = leaf.detach().numpy() if hasattr(leaf, "detach") else np.asarray(leaf)
        except (TypeError, ValueError, RuntimeError):  # sparse, or of a dtype that NumPy lacks
            return None
    # What lies below a mask or between the fields of a structure may be anything.
    is_plain = not isinstance(leaf, np.ma.MaskedArray) and leaf.dtype.names is None
    return leaf if is_plain and not leaf.dtype.hasobject else None


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """Pieces from all over an array, in C order."""
    # To make a contiguous array of another one would copy all of it.
    flat: Any = array.reshape(-1) if array.flags.c_contiguous else array.flat
    length = max(1, _PIECE_BYTES // max(1, array.itemsize))
    if array.size <= _NUM_PIECES * length:
        yield flat[:]
        return
    for begin in np.linspace(0, array.size - length, _NUM_PIECES).astype(int).tolist():
        yield flat[begin : begin + length]
