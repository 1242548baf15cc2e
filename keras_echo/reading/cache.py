"""Fresh batches that are kept, so that later passes needn't read them.

A pass asks for every batch once. Whatever a cache throws out for another batch is asked for no
later than that one, so a cache that keeps what comes first, and throws nothing out, has as many
hits as any of its size (CoorDL's MinIO cache, arXiv 2007.06775).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from keras_echo._checks import check_count
from keras_echo._messages import expected
from keras_echo.memory.batch import copied, num_bytes_of
from keras_echo.memory.pool import Pool
from keras_echo.reading.budget import Budget
from keras_echo.reading.cache_directory import InFiles
from keras_echo.reading.stream import Fresh

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.memory.batch import Batch
    from keras_echo.metering import Meter
    from keras_echo.reading.stream import Read


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Where an `EchoingPyDataset` keeps fresh batches for later passes, and how many bytes of them.

    Batches are kept as they are read, before the echo and the augmentation, from the first pass on:
    in memory until its bytes are used up, then in files until theirs are. None is thrown out. A
    batch that is kept costs a copy instead of a read, and every use gets memory of its own.

    Kept by its index, a batch must be the same in each pass: what the source draws at random in
    `__getitem__` is drawn once. Put augmentation into `augment=`.

    Args:
        memory_bytes: What the arrays of batches in memory may take.
        directory: Where files go, one for each batch. They hold raw bytes, so batches with anything
            but dense NumPy arrays of a fixed width (objects; tensors; sparse or ragged arrays) are
            kept in memory only.
        directory_bytes: What the files may take. Those that are found under a key count.
        key: Stands for the data: whoever changes the data changes the key. With a key, the files
            stay in `directory/key` and are found again by the next dataset with that key, in this
            process or in another one. Without one, they lie in a directory of their own, which is
            removed by `close()`, with the dataset, and when the interpreter ends.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If there is no byte to keep anything in, `directory` and `directory_bytes`
            aren't given together, or the key is no name for a directory.

    Examples:
        >>> cache = keras_echo.Cache(memory_bytes=8 * 2**30)
        >>> dataset = keras_echo.EchoingPyDataset(source, cache=cache)
    """

    memory_bytes: int = 0
    directory: str | os.PathLike[str] | None = None
    directory_bytes: int | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        check_count("memory_bytes", self.memory_bytes, 0)
        if self.directory is None:
            for name in ("directory_bytes", "key"):
                if (value := getattr(self, name)) is not None:
                    raise ValueError(
                        expected(name, "be None without a directory", value, "Name the directory")
                    )
            if not self.memory_bytes:
                raise ValueError(
                    expected(
                        "A cache",
                        "have memory or a directory",
                        self,
                        "Pass memory_bytes, or directory and directory_bytes",
                    )
                )
            return
        if not isinstance(self.directory, (str, os.PathLike)):
            raise TypeError(
                expected("directory", "be a path", self.directory, "Pass a string or a Path")
            )
        check_count("directory_bytes", self.directory_bytes, 1)
        if self.key is not None:
            _check_key(self.key)


class CachedReads:
    """Stands between readers and what they read: keeps batches, and serves those it has.

    Thread-safe.

    Args:
        cache: Where, and how many bytes.
        length: Batches in a pass of the source.
        meter: Counts the hits.

    Raises:
        ValueError: If under the cache's key lie batches of another length or format.
        OSError: If the directory can't be made or read.
    """

    def __init__(self, cache: Cache, length: int, meter: Meter) -> None:
        self._meter = meter
        self._places: tuple[_Place, ...] = (InMemory(int(cache.memory_bytes)),)
        if cache.directory is not None:
            assert cache.directory_bytes is not None
            directory = Path(cache.directory)
            directory.mkdir(parents=True, exist_ok=True)  # now, so that a mistake is heard at once
            self._places += (InFiles(directory, int(cache.directory_bytes), length, cache.key),)

    @property
    def num_bytes(self) -> int:
        """What is kept: bytes of arrays in memory, and of files."""
        return sum(place.num_bytes for place in self._places)

    def __call__(self, read: Read, do: Callable[[Read], Fresh]) -> Fresh:
        """The batch of a read, in memory that isn't the cache's; `do` reads it if it isn't kept."""
        places = self._places
        for place in places:
            if (batch := place.get(read.index)) is not None:
                self._meter.hit()
                assert read.position is not None
                return Fresh(read.position, batch)
        fresh = do(read)
        for place in places:
            if place.keep(read.index, fresh.batch):
                break
        return fresh

    def clear(self) -> None:
        """Lets go of all that needn't stay."""
        self._places = tuple(place.emptied() for place in self._places)


class _Place(Protocol):
    """Where batches are kept."""

    @property
    def num_bytes(self) -> int:
        """What is kept there."""

    def get(self, index: int) -> Batch | None:
        """A copy of the batch of an index; None if it isn't there."""

    def keep(self, index: int, batch: Batch) -> bool:
        """Keeps a copy of a batch, if there is room; says whether."""

    def emptied(self) -> Self:
        """What takes its place when the dataset is closed."""


class InMemory:
    """Keeps batches in memory. Thread-safe.

    Args:
        most_bytes: What their leaves may take.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._budget = Budget(most_bytes)
        self._batches: dict[int, Batch] = {}
        self._empty = Pool().empty

    @property
    def num_bytes(self) -> int:
        """See `_Place`."""
        return self._budget.num_bytes

    def get(self, index: int) -> Batch | None:
        """See `_Place`."""
        return copied(self._batches.get(index), self._empty)

    def keep(self, index: int, batch: Batch) -> bool:
        """See `_Place`."""
        if not self._budget.reserve(index, num_bytes_of(batch)):
            return False
        try:
            self._batches[index] = copied(batch)
        except BaseException:
            self._budget.give_back(index)
            raise
        return True

    def emptied(self) -> InMemory:
        """See `_Place`."""
        return InMemory(self._most_bytes)


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise TypeError(expected("key", "be a string", key, "Name the data, such as 'train-v1'"))
    if not key or key in (".", "..") or set(key) & set("/\\\0"):
        raise ValueError(
            expected("key", "be a name for a directory", key, "Leave out slashes, as in 'train-v1'")
        )
