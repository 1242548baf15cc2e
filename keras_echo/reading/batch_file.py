"""One batch as a file: a header that says what it is, then the bytes of its arrays as they are.

```text
bytes  what
    8  the format, `MAGIC`
    8  the length of the header
    8  xxh3_64 of the header
    8  xxh3_64 of the xxh3_64s of the pieces of the arrays, of `_PIECE` bytes each
       the header: JSON, the label of the file, the structure of the batch, the bytes of its data
       the bytes of the arrays, one after the other
```

A file appears under its name when it is whole. It isn't flushed to the disk: what a power failure
leaves of it doesn't fit its checksums.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from xxhash import xxh3_64_digest, xxh3_64_intdigest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO
    from pathlib import Path

    from keras_echo.memory.batch import Batch

MAGIC = b"kecho\0\0\1"  # its last byte is the number of the format
TEMPORARY = ".tmp"  # the suffix of a file that isn't whole yet

_PREFIX = struct.Struct("<8sQQQ")
_PIECE = 2**19  # bytes; what was read is still in the processor's cache when it is summed

# Letters and a size, or one of NumPy's and ml_dtypes's words; `np.dtype` knows much more.
_DTYPE = re.compile(r"[<>|][biufcSUVmM]\d{1,9}(\[\w{1,9}\])?|[a-z]{2}\w{1,30}")

MAX_HEADER_BYTES = 2**22
"""The longest header: that of a batch with some 50,000 arrays."""


class DamagedError(Exception):
    """A file doesn't hold, bit for bit, what was written under that label."""


class NoRawBytesError(TypeError):
    """A batch has more than NumPy arrays in tuples, lists and dicts, or arrays of objects."""


class Packed:
    """A batch that is ready to be written.

    Args:
        batch: NumPy arrays and None in tuples, lists and dicts with strings as keys. dtypes are
            those of NumPy with a fixed width, and those of `ml_dtypes`, such as bfloat16.
        label: What the file says that it holds, as JSON; whoever reads it must expect the same.

    Attributes:
        num_bytes: Size of the file.

    Raises:
        NoRawBytesError: If there is anything else in it, or too many arrays for a header.
    """

    def __init__(self, batch: Batch, label: Any) -> None:
        self._arrays: list[np.ndarray] = []
        structure = _structure(batch, self._arrays)
        data_size = sum(array.nbytes for array in self._arrays)
        header = {"label": label, "batch": structure, "data_size": data_size}
        self._header = json.dumps(header).encode()
        if len(self._header) > MAX_HEADER_BYTES:
            raise NoRawBytesError(f"{len(self._arrays)} arrays")
        self.num_bytes = _PREFIX.size + len(self._header) + data_size

    def write(self, path: Path) -> None:
        """Writes the file, or replaces the one that is there, in one step.

        Raises:
            OSError: If that isn't possible; nothing new is left then.
        """
        parts = [_bytes_of(np.ascontiguousarray(array)) for array in self._arrays]
        sums = [xxh3_64_digest(piece) for data in parts for piece in _pieces(data)]
        prefix = _PREFIX.pack(
            MAGIC,
            len(self._header),
            xxh3_64_intdigest(self._header),
            xxh3_64_intdigest(b"".join(sums)),
        )
        replace(path, [prefix, self._header, *parts])


def replace(path: Path, parts: list[Any]) -> None:
    """Writes a file of parts one after the other, so that it is there whole or not at all."""
    unfinished = path.with_name(f"{path.name}-{secrets.token_hex(8)}{TEMPORARY}")
    try:
        with unfinished.open("xb") as file:
            for part in parts:
                file.write(part)
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


def read(path: Path, label: Any, empty: Callable[..., np.ndarray] = np.empty) -> Batch:
    """Reads a batch.

    Args:
        path: The file.
        label: What it must hold; see `Packed`.
        empty: Makes the arrays, of a shape and a dtype.

    Raises:
        DamagedError: If it holds anything else.
        OSError: If it can't be read.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size < _PREFIX.size:
            raise DamagedError("it is too short")
        magic, header_size, header_sum, data_sum = _PREFIX.unpack(file.read(_PREFIX.size))
        if magic != MAGIC or header_size > min(size - _PREFIX.size, MAX_HEADER_BYTES):
            raise DamagedError("it doesn't begin like a batch")
        header = file.read(header_size)
        if xxh3_64_intdigest(header) != header_sum:
            raise DamagedError("its header is damaged")
        # A checksum tells of accidents, not of intent: all is checked before anything is made.
        found, structure, kinds = _described(header)
        if found != label:
            raise DamagedError(f"it holds {found}")
        if size != _PREFIX.size + header_size + sum(kind.num_bytes for kind in kinds):
            raise DamagedError("it was cut off, or something was added")
        arrays, sums = [], []
        for kind in kinds:
            arrays.append(empty(kind.shape, kind.dtype))
            for piece in _pieces(_bytes_of(arrays[-1])):
                _fill(piece, file)
                sums.append(xxh3_64_digest(piece))
        if xxh3_64_intdigest(b"".join(sums)) != data_sum:
            raise DamagedError("its data are damaged")
        in_order = iter(arrays)
        return _built(structure, lambda _: next(in_order))


class _Kind(NamedTuple):
    """What an array is to be."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    num_bytes: int


def _described(header: bytes) -> tuple[Any, Any, list[_Kind]]:
    """The label, the structure of the batch, and its arrays in their order.

    Raises:
        DamagedError: If it is no header that `Packed` writes.
    """
    kinds: list[_Kind] = []
    try:
        described = json.loads(header)
        _built(described["batch"], lambda node: kinds.append(_kind(node)))
        return described["label"], described["batch"], kinds
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedError("its header doesn't describe a batch") from error


def _kind(node: dict[str, Any]) -> _Kind:
    name, shape = node["dtype"], tuple(node["shape"])
    if not _DTYPE.fullmatch(name):
        raise ValueError(name)
    try:
        dtype = np.dtype(name)
    except TypeError as error:  # of another release of ml_dtypes
        raise DamagedError(f"its dtype {name} is unknown here") from error
    if _name(dtype) != name or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(name)
    if math.prod(max(1, length) for length in shape) * dtype.itemsize >= 2**63:
        raise ValueError("more than NumPy counts, also without the dimensions of length 0")
    return _Kind(shape, dtype, math.prod(shape) * dtype.itemsize)


def _structure(batch: Batch, arrays: list[np.ndarray]) -> Any:
    """The structure of a batch as JSON; its arrays are appended in their order."""
    kind = type(batch)
    if batch is None:
        return None
    if kind is tuple or kind is list:
        return {kind.__name__: [_structure(node, arrays) for node in batch]}
    if kind is dict and all(type(key) is str for key in batch):
        return {"dict": [[key, _structure(node, arrays)] for key, node in batch.items()]}
    if kind is np.ndarray:
        arrays.append(batch)
        return {"dtype": _name(batch.dtype), "shape": batch.shape}
    raise NoRawBytesError(kind)


def _built(node: Any, array: Callable[[dict[str, Any]], Any]) -> Batch:
    """The batch of a structure, with what is made of each array's node, in their order."""
    match node:
        case None:
            return None
        case {"tuple": nodes}:
            return tuple([_built(inner, array) for inner in nodes])
        case {"list": nodes}:
            return [_built(inner, array) for inner in nodes]
        case {"dict": items}:
            return {key: _built(inner, array) for key, inner in items}
    return array(node)


def _name(dtype: np.dtype[Any]) -> str:
    """By which NumPy finds the dtype again: bfloat16 has a name, and `>f4` more than a name."""
    if not dtype.hasobject and dtype.itemsize:
        for name in (dtype.str, dtype.name):
            with suppress(TypeError):
                if np.dtype(name) == dtype:
                    return name
    raise NoRawBytesError(dtype)


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _pieces(data: memoryview) -> Iterator[memoryview]:
    return (data[at : at + _PIECE] for at in range(0, len(data), _PIECE))


def _fill(piece: memoryview, file: FileIO) -> None:
    while piece:
        num_bytes = file.readinto(piece)
        if not num_bytes:
            raise DamagedError("it was cut off")
        piece = piece[num_bytes:]
