"""Batches as files, one each: written to a directory, and read from the demo's store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_echo._messages import expected
from keras_echo._optional import optional
from keras_echo.demo.slow_store.client import Client

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    import numpy as np

    from keras_echo.memory.batch import Batch


def shard_name(index: int) -> str:
    """The file name of a shard."""
    return f"shard-{index:05d}.safetensors"


def write_shards(
    directory: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], size: int
) -> int:
    """Writes arrays as shards of `size` rows, uncompressed: each read costs the same.

    Args:
        directory: Where the shards go; made where it is missing.
        arrays: Arrays of one length, numeric or boolean. Rows that fill no shard are left out.
        size: Rows in a shard.

    Returns:
        The number of shards.
    """
    save_file = _safetensors().save_file
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    count = min(map(len, arrays.values())) // size
    for index in range(count):
        rows = slice(index * size, (index + 1) * size)
        part = {name: array[rows].copy() for name, array in arrays.items()}
        save_file(part, directory / shard_name(index))
    return count


class RemoteShards(keras.utils.PyDataset):
    """Reads batch i as one shard, with one GET over a connection that is kept.

    Any number of threads may read at once, and a pickled copy reads by itself.

    Args:
        url: The store's URL.
        count: How many shards to read, from the first on.
        decode: Makes a batch of the arrays of a shard, which are its own.
        timeout: Seconds without a byte from the store after which a read fails.
        **options: `workers`, `use_multiprocessing` and `max_queue_size` of a PyDataset.
    """

    def __init__(
        self,
        url: str,
        count: int,
        decode: Callable[[dict[str, np.ndarray]], Batch],
        *,
        timeout: float = 60.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._client = Client(url, timeout)
        self._count = count
        self._decode = decode

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < self._count:
            raise IndexError(
                expected("index", f"be in 0..{self._count - 1}", index, "Read within `len()`")
            )
        return self._decode(_safetensors().load(self._client.get(shard_name(index))))

    def close(self) -> None:
        """Closes the idle connections; a later read opens new ones."""
        self._client.close()


def _safetensors() -> Any:
    return optional("safetensors.numpy", "is the format of the demo's files")
