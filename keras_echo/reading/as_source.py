"""Anything that Keras trains on, as a `Source`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import keras

from keras_echo._messages import expected
from keras_echo.memory.batch import map_leaves
from keras_echo.reading.data_loader import passes_of, set_epoch, unseeded_sampler
from keras_echo.reading.random_access import ArraySource, PyDatasetSource
from keras_echo.reading.sequential import IterableSource

if TYPE_CHECKING:
    from keras_echo.memory.batch import Batch
    from keras_echo.reading.source import Source

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
        passes = _PassesOfTfData(source)
        return IterableSource(
            passes, cardinality if cardinality >= 0 else None, before_pass=passes.go_to
        )
    if _is_instance(source, "torch.utils.data", "DataLoader"):
        sized = hasattr(source.dataset, "__len__")
        length = len(source) if sized else None
        return IterableSource(
            passes_of(source),
            length,
            before_pass=set_epoch(source),
            unseeded=unseeded_sampler(source),
        )
    if _is_instance(source, "grain", "MapDataset"):
        # A repeated one says sys.maxsize, or nearly that if it was batched since.
        return IterableSource(source.__iter__, len(source) if len(source) < _ENDLESS else None)
    if _is_instance(source, "grain", "IterDataset") or _is_instance(source, "grain", "DataLoader"):
        return IterableSource(source.__iter__)
    if callable(source):
        return IterableSource(_PassesOfFunction(source))
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


class _PassesOfFunction:
    """Calls a function that is to return an iterator of batches."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function

    def __call__(self) -> Iterable[Batch]:
        """Opens a pass.

        Raises:
            TypeError: If the function returns anything else, such as a batch: its arrays would
                pass for batches.
        """
        batches = self._function()
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


class _PassesOfTfData:
    """Reads a `tf.data.Dataset`: NumPy arrays, and tensors where they aren't dense."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._tf = sys.modules["tensorflow"]
        specs = keras.tree.flatten(dataset.element_spec)
        self._is_dense = all(isinstance(spec, self._tf.TensorSpec) for spec in specs)
        self._num_opened = 0

    def go_to(self, number: int) -> None:
        """Opens the passes before a pass: a seeded shuffle draws another order for each of them."""
        while self._num_opened < number:
            iter(self._dataset)
            self._num_opened += 1

    def __call__(self) -> Iterable[Batch]:
        """Opens a pass."""
        self._num_opened += 1
        if self._is_dense:
            batches: Iterable[Batch] = self._dataset.as_numpy_iterator()
            return batches
        return map(self._on_host, self._dataset)

    def _on_host(self, batch: Batch) -> Batch:
        tensor = self._tf.Tensor
        return map_leaves(lambda leaf: leaf.numpy() if isinstance(leaf, tensor) else leaf, batch)


def _is_array(value: object) -> bool:
    return hasattr(value, "shape") and hasattr(value, "__getitem__")


def _is_instance(value: object, module: str, name: str) -> bool:
    """Whether `value` is of a class of a library, without importing it: its user did already."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is not None and isinstance(value, found)
