"""Sources that read ahead by themselves, each of which delivers a batch every `batch_seconds`."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

from emulated import BATCH_SIZE, NUM_FEATURES, batch_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

NUM_EXAMPLES = 1_000_000
NUM_THREADS, NUM_WORKERS = 4, 2


def tf_data(batch_seconds: float) -> Any:
    """A generator of batches, with `prefetch(16)`."""
    import tensorflow as tf

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index in itertools.count():
            time.sleep(batch_seconds)
            yield batch_of(index)

    spec = (
        tf.TensorSpec((BATCH_SIZE, NUM_FEATURES), tf.float32),
        tf.TensorSpec((BATCH_SIZE, 1), tf.float32),
    )
    return tf.data.Dataset.from_generator(batches, output_signature=spec).prefetch(16)


def data_loader(batch_seconds: float) -> Any:
    """A torch `DataLoader` with two worker processes, each of which is four batches ahead."""
    import torch

    class Examples(torch.utils.data.Dataset):
        """Single examples."""

        def __len__(self) -> int:
            return NUM_EXAMPLES

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            return _example(index, NUM_WORKERS * batch_seconds / BATCH_SIZE)

    return torch.utils.data.DataLoader(
        Examples(), batch_size=BATCH_SIZE, num_workers=NUM_WORKERS, prefetch_factor=4
    )


def grain(batch_seconds: float) -> Any:
    """A Grain dataset whose four threads are eight batches ahead."""
    import grain

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        return _example(index, NUM_THREADS * batch_seconds / BATCH_SIZE)

    options = grain.ReadOptions(num_threads=NUM_THREADS, prefetch_buffer_size=8 * BATCH_SIZE)
    examples = grain.MapDataset.range(NUM_EXAMPLES).map(read)
    return examples.to_iter_dataset(options).batch(BATCH_SIZE)


def _example(index: int, read_seconds: float) -> tuple[np.ndarray, np.ndarray]:
    time.sleep(read_seconds)
    x, y = batch_of(index)
    return x[0], y[0]
