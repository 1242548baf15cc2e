"""Anything that Keras trains on, as a stream of reads that yield fresh batches.

A source knows in which order it is to be read and how one read is done, not who does it or when:
`reads` lists the reads, `read` does one of them, on whatever thread or in whatever process.
"""

from __future__ import annotations

import sys
from typing import Any

import keras

from keras_echo._messages import expected
from keras_echo.sources.base import Parallelism, Source
from keras_echo.sources.random_access import ArraySource, PyDatasetSource
from keras_echo.sources.sequential import IterableSource, set_epoch

__all__ = ["Parallelism", "Source", "as_source"]

_ENDLESS = 2**48


def as_source(source: Any, *, shuffle: bool, batch_size: int) -> Source:
    """Wraps whatever the user trains on.

    Args:
        source: A `PyDataset`, a `tf.data.Dataset`, a torch `DataLoader`, a Grain dataset, a
            callable that returns an iterator of batches, or arrays as a tuple `(x,)`, `(x, y)` or
            `(x, y, sample_weight)`.
        shuffle: Whether to draw the order of a random-access source anew in each pass.
        batch_size: Examples in a batch, for arrays.

    Raises:
        TypeError: If it is none of these.
        ValueError: If it is empty, or its arrays differ in length.
    """
    if isinstance(source, keras.utils.PyDataset):
        return PyDatasetSource(source, shuffle=shuffle)
    if isinstance(source, (tuple, list)) and len(source) in (1, 2, 3):
        return ArraySource(tuple(source), batch_size=batch_size, shuffle=shuffle)
    if _is_instance(source, "tensorflow", "data.Dataset"):
        cardinality = int(source.cardinality())
        return IterableSource(source.as_numpy_iterator, cardinality if cardinality >= 0 else None)
    if _is_instance(source, "torch.utils.data", "DataLoader"):
        sized = hasattr(source.dataset, "__len__")
        length = len(source) if sized else None
        return IterableSource(source.__iter__, length, before_pass=set_epoch(source))
    if _is_instance(source, "grain", "MapDataset"):
        # A repeated one says sys.maxsize, or nearly that if it was batched since.
        return IterableSource(source.__iter__, len(source) if len(source) < _ENDLESS else None)
    if _is_instance(source, "grain", "IterDataset"):
        return IterableSource(source.__iter__)
    if callable(source):
        return IterableSource(source)
    raise TypeError(
        expected(
            "source",
            "be a keras.utils.PyDataset, a tf.data.Dataset, a torch DataLoader, a Grain dataset, "
            "a callable that returns an iterator of batches, or arrays as a tuple (x, y)",
            source,
            "For a generator, pass the function that makes it, so that a new pass can begin",
        )
    )


def _is_instance(value: object, module: str, name: str) -> bool:
    """Whether `value` is of a class of a library, without importing it: its user did already."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is not None and isinstance(value, found)
