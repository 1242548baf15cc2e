"""Anything that Keras trains on, as a stream of reads that yield fresh batches.

A source knows in which order it is to be read and how one read is done, not who does it or when:
`reads` lists the reads, `read` does one of them, on whatever thread or in whatever process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import keras

from keras_echo._messages import expected
from keras_echo.reading.random_access import ArraySource, PyDatasetSource
from keras_echo.reading.sequential import IterableSource, set_epoch
from keras_echo.reading.source import Parallelism, Source

if TYPE_CHECKING:
    from keras_echo.memory.batch import Batch

__all__ = ["Parallelism", "Source", "as_source"]

_ENDLESS = 2**48


def as_source(source: Any, *, shuffle: bool, batch_size: int) -> Source:
    """Wraps whatever the user trains on.

    Args:
        source: A `PyDataset`, a `tf.data.Dataset`, a torch `DataLoader`, a Grain dataset, a
            callable that returns an iterator of batches, or arrays: a tuple `(x,)`, `(x, y)` or
            `(x, y, sample_weight)`, or x alone as an array or a dict of arrays.
        shuffle: Whether to draw the order of a random-access source anew in each pass.
        batch_size: Examples in a batch, for arrays.

    Raises:
        TypeError: If it is none of these.
        ValueError: If it is empty, or its arrays differ in length.
    """
    if isinstance(source, keras.utils.PyDataset):
        return PyDatasetSource(source, shuffle=shuffle)
    if isinstance(source, dict) or _is_array(source):
        source = (source,)
    if isinstance(source, tuple) and len(source) in (1, 2, 3):
        return ArraySource(source, batch_size=batch_size, shuffle=shuffle)
    if _is_instance(source, "tensorflow", "data.Dataset"):
        cardinality = int(source.cardinality())
        return IterableSource(_on_host(source), cardinality if cardinality >= 0 else None)
    if _is_instance(source, "torch.utils.data", "DataLoader"):
        sized = hasattr(source.dataset, "__len__")
        length = len(source) if sized else None
        return IterableSource(source.__iter__, length, before_pass=set_epoch(source))
    if _is_instance(source, "grain", "MapDataset"):
        # A repeated one says sys.maxsize, or nearly that if it was batched since.
        return IterableSource(source.__iter__, len(source) if len(source) < _ENDLESS else None)
    if _is_instance(source, "grain", "IterDataset") or _is_instance(source, "grain", "DataLoader"):
        return IterableSource(source.__iter__)
    if callable(source):
        return IterableSource(partial(_pass_of, source))
    raise TypeError(
        expected(
            "source",
            "be a keras.utils.PyDataset, a tf.data.Dataset, a torch DataLoader, a Grain dataset, "
            "a callable that returns an iterator of batches, or arrays as a tuple (x, y)",
            source,
            _remedy(source),
        )
    )


def _remedy(source: object) -> str:
    if isinstance(source, (list, tuple)):
        return (
            "Pass (x, y) as a tuple, ([a, b], y) for two inputs, or lambda: iter(batches) for a "
            "list of batches"
        )
    return "For a generator, pass the function that makes it, so that a new pass can begin"


def _pass_of(function: Callable[[], Any]) -> Iterable[Batch]:
    """Calls a function that is to return an iterator of batches.

    Raises:
        TypeError: If it returns anything else, such as a batch: its arrays would pass for batches.
    """
    batches = function()
    looks_like_a_batch = isinstance(batches, (tuple, dict)) or _is_array(batches)
    if looks_like_a_batch or not isinstance(batches, Iterable):
        raise TypeError(
            expected(
                "What the source returns when it is called",
                "be an iterator of the batches of a pass",
                batches,
                "Make it a generator: yield each batch instead of returning one",
            )
        )
    return batches


def _on_host(dataset: Any) -> Callable[[], Iterable[Batch]]:
    """Opens a pass over a `tf.data.Dataset`: NumPy arrays, and tensors where they aren't dense."""
    tf = sys.modules["tensorflow"]
    if all(isinstance(spec, tf.TensorSpec) for spec in keras.tree.flatten(dataset.element_spec)):
        open_pass: Callable[[], Iterable[Batch]] = dataset.as_numpy_iterator
        return open_pass

    def leaf_on_host(leaf: Any) -> Any:
        return leaf.numpy() if isinstance(leaf, tf.Tensor) else leaf

    return lambda: map(partial(keras.tree.map_structure, leaf_on_host), dataset)


def _is_array(value: object) -> bool:
    return hasattr(value, "shape") and hasattr(value, "__getitem__")


def _is_instance(value: object, module: str, name: str) -> bool:
    """Whether `value` is of a class of a library, without importing it: its user did already."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is not None and isinstance(value, found)
