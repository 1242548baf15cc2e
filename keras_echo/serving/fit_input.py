"""Batches in the form in which `fit()` takes them from a `PyDataset`.

From a `PyDataset` Keras takes less than from arrays, generators or `tf.data`: no tensor that stands
alone, and on TensorFlow no lists, no NumPy strings, no sparse matrices of SciPy and no None. What
can be said otherwise is said so here, as Keras itself does it for the other kinds of data.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_echo._messages import expected
from keras_echo.memory.batch import Batch, is_sparse_or_ragged, leaves_of, map_leaves

if TYPE_CHECKING:
    from collections.abc import Callable


class FitInput:
    """Gives the batches of a dataset the form in which Keras takes them on its current backend."""

    def __init__(self) -> None:
        self._backend = keras.backend.backend()
        self._leaf = _LEAVES.get(self._backend, lambda leaf: leaf)
        self._error: ValueError | None = None
        self._peeked = _PeekedShapes()

    def __call__(self, batch: Batch) -> Batch:
        """A batch in that form. One that Keras takes as it is comes back unchanged."""
        on_tensorflow = self._backend == "tensorflow"
        # Most batches need nothing, and to map over a structure takes as long as to serve a batch.
        if not _is_taken(batch, list_is_taken=not on_tensorflow):
            batch = map_leaves(self._leaf, batch)
            if on_tensorflow:
                batch = _without_last_none(keras.tree.lists_to_tuples(batch))
                self._error = self._error or _none_inside(batch)
        return batch if isinstance(batch, (tuple, list, dict, np.ndarray)) else (batch,)

    def peeked(self, batch: Batch, index: int) -> Batch:
        """The same of a batch `index` that Keras only peeks at."""
        batch = self(batch)
        return self._peeked.widened(batch, index) if self._backend == "tensorflow" else batch

    def check_fits(self, batch: Batch, name: Callable[[], str]) -> None:
        """Compares a batch in that form with what Keras knows of all since it peeked.

        Args:
            batch: The batch.
            name: Returns what it is, for the message.

        Raises:
            ValueError: If Keras on TensorFlow can't train on it.
        """
        if self._backend == "tensorflow":
            self._peeked.check(batch, name)

    def on_epoch_begin(self) -> None:
        """Keras calls this after it has peeked, and before TensorFlow stumbles over a batch.

        Raises:
            ValueError: If a batch can't be trained on by `fit()`. It is served all the same, for
                loops of the user's own.
        """
        if self._error is not None:
            raise self._error


class _PeekedShapes:
    """Has all dimensions that ever varied between peeks vary between the peeks at 0 and 1.

    From these two, Keras on TensorFlow learns which dimensions vary. Those of a later `fit()` are
    other batches, which may be alike where the first ones weren't.
    """

    def __init__(self) -> None:
        self._first: list[tuple[int, ...]] = []  # shapes of the last peek at 0, leaf by leaf
        self._varying: set[tuple[int, int]] = set()  # a leaf's number, and an axis of it

    def widened(self, batch: Batch, index: int) -> Batch:
        """The batch, or for an index above 0 a stand-in of zeros that differs where it has to."""
        shapes = [tuple(getattr(leaf, "shape", ())) for leaf in leaves_of(batch)]
        if [*map(len, shapes)] != [*map(len, self._first)]:
            self._first, self._varying = shapes, set()
        differing = {
            (number, axis)
            for number, sizes in enumerate(zip(self._first, shapes, strict=True))
            for axis, (size, other) in enumerate(zip(*sizes, strict=True))
            if size != other
        }
        self._varying |= differing
        if index == 0:
            self._first = shapes
        if index == 0 or differing == self._varying:
            return batch
        numbers = itertools.count()

        def stand_in(leaf: Any) -> Any:
            number = next(numbers)
            if not isinstance(leaf, np.ndarray):
                return leaf
            shape = [
                size + ((number, axis) in self._varying)
                for axis, size in enumerate(self._first[number])
            ]
            return np.broadcast_to(np.zeros((), leaf.dtype), shape)

        return map_leaves(stand_in, batch)

    def check(self, batch: Batch, name: Callable[[], str]) -> None:
        """Refuses a batch of which a dimension differs that was the same in all peeks.

        The number of examples may always vary. From now on the dimension is known to vary, so the
        next `fit()` learns it.
        """
        for number, (first, leaf) in enumerate(zip(self._first, leaves_of(batch), strict=False)):
            shape = tuple(getattr(leaf, "shape", ()))
            if shape[1:] == first[1:]:
                continue
            axes = [
                axis
                for axis, (size, other) in enumerate(zip(first, shape, strict=False))
                if axis and size != other and (number, axis) not in self._varying
            ]
            if axes:
                self._varying |= {(number, axis) for axis in axes}
                raise ValueError(
                    expected(
                        name(),
                        f"have the sizes {first[1:]} in array {number}, as the two batches had "
                        "from which Keras on TensorFlow learned them",
                        shape[1:],
                        "Call fit() again, which now knows that this dimension varies, pad all "
                        "batches to one size, or train on dataset.as_tf_dataset(element_spec)",
                    )
                )


def as_tensorflow_takes(leaf: Any) -> Any:
    """Makes a tensor of what TensorFlow doesn't take for one: strings, sparse matrices."""
    import tensorflow as tf

    with tf.device("CPU"):
        if is_text(leaf):
            return tf.constant(leaf)
        if hasattr(leaf, "tocoo"):  # SciPy
            leaf = leaf.tocoo()
            indices = np.stack([leaf.row, leaf.col], axis=1)
            return tf.sparse.reorder(tf.SparseTensor(indices, leaf.data, leaf.shape))
        if is_sparse_or_ragged(leaf) and not tf.is_tensor(leaf):  # JAX
            return tf.sparse.reorder(tf.SparseTensor(leaf.indices, leaf.data, leaf.shape))
    return leaf


def is_text(leaf: Any) -> bool:
    """Whether `leaf` is a NumPy array of strings."""
    if not isinstance(leaf, np.ndarray):
        return False
    is_object = leaf.dtype.kind == "O"
    return leaf.dtype.kind in "SU" or (
        is_object and all(isinstance(item, (str, bytes)) for item in leaf.flat)
    )


_dense_tensors: set[type] = set()  # those seen: to ask the backend takes longer


def _is_taken(node: Any, *, list_is_taken: bool) -> bool:
    kind = type(node)
    if isinstance(node, np.ndarray):
        return node.dtype.kind not in "OSU"
    if kind is tuple or kind is dict or (list_is_taken and kind is list):
        for item in node.values() if kind is dict else node:
            if not _is_taken(item, list_is_taken=list_is_taken):
                return False
        return True
    if kind in _dense_tensors:
        return True
    is_dense = bool(keras.ops.is_tensor(node)) and not is_sparse_or_ragged(node)
    if is_dense:
        _dense_tensors.add(kind)
    return is_dense


def _without_last_none(batch: Batch) -> Batch:
    """The batch without a sample_weight, or y and sample_weight, of None."""
    while isinstance(batch, tuple) and len(batch) > 1 and batch[-1] is None:
        batch = batch[:-1]
    return batch


def _none_inside(batch: Batch) -> ValueError | None:
    if all(leaf is not None for leaf in leaves_of(batch)):
        return None
    return ValueError(
        expected(
            "A batch that fit() takes from a PyDataset on TensorFlow",
            "have no None inside x or y",
            batch,
            "Pass dataset.as_tf_dataset() to fit(), which can, or leave the None out",
        )
    )


def _without_ragged(leaf: Any) -> Any:
    return leaf.to_tensor().numpy() if type(leaf).__name__ == "RaggedTensor" else leaf


def _dense(leaf: Any) -> Any:
    if type(leaf).__name__ == "SparseTensor":
        import tensorflow as tf

        return tf.sparse.to_dense(leaf).numpy()
    return leaf.toarray() if hasattr(leaf, "tocoo") else _without_ragged(leaf)


# As Keras has it where it takes these as arrays: of sparse ones it makes JAX's own by itself.
_LEAVES = {"tensorflow": as_tensorflow_takes, "jax": _without_ragged, "torch": _dense}
