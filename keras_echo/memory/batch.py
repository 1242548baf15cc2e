"""What a batch may look like, how to copy one, and one that waits for its reuse."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np

from keras_echo._messages import expected

if TYPE_CHECKING:
    from collections.abc import Callable

_LITTLE = 2**14  # bytes, for which `empty` may take longer than the copy

Batch = Any
"""Whatever `fit()` takes: `(x,)`, `(x, y)`, `(x, y, sample_weight)`, a dict, or x alone as an array
or a tensor. x, y and sample_weight are arrays, or nested structures of arrays and None."""


class Waiting(Protocol):
    """A batch that waits for its next use."""

    batch: Batch  # on the host
    is_ours: bool  # whether the memory of `batch` may be written to

    def use(self) -> Batch:
        """A batch of the same values. In-place changes of it are seen by nobody else."""


def checked(batch: Batch, subject: str, remedy: str) -> Batch:
    """Returns `batch` if `fit()` can train on its structure.

    Args:
        batch: What may be a batch.
        subject: What it is, as in `keras_echo._messages.expected`.
        remedy: What to do if it is none.

    Raises:
        ValueError: If it can't.
    """
    if isinstance(batch, (tuple, list)):
        is_batch = len(batch) in (1, 2, 3)
    else:
        is_batch = isinstance(batch, dict) or len(getattr(batch, "shape", ())) > 0
    if is_batch:
        return batch
    raise ValueError(
        expected(
            subject,
            "be a tuple (x,), (x, y) or (x, y, sample_weight), a dict, or x alone as an array",
            batch,
            remedy,
        )
    )


def is_sparse_or_ragged(leaf: Any) -> bool:
    """Whether `leaf` is a sparse or ragged array of SciPy, JAX or TensorFlow."""
    kind = type(leaf)
    return kind.__module__.startswith(
        ("scipy.sparse", "jax.experimental.sparse")
    ) or kind.__name__ in ("SparseTensor", "RaggedTensor")


def map_leaves(function: Callable[[Any], Any], batch: Batch) -> Batch:
    """`keras.tree.map_structure` for one structure, many times as fast for the usual ones.

    Keras's takes about as long as all else that it takes to serve a small batch. None is a leaf.
    """
    kind = type(batch)
    if kind is tuple or kind is list:
        return kind([map_leaves(function, node) for node in batch])
    if kind is dict:
        try:
            mapped = {key: map_leaves(function, batch[key]) for key in sorted(batch)}
        except TypeError:  # keys of several kinds
            mapped = {key: map_leaves(function, node) for key, node in batch.items()}
        return {key: mapped[key] for key in batch}
    if batch is None or hasattr(batch, "shape") or not keras.tree.is_nested(batch):
        return function(batch)
    return keras.tree.map_structure(function, batch)


def leaves_of(batch: Batch) -> list[Any]:
    """The leaves of a batch in a fixed order.

    Unlike `keras.tree.flatten` on PyTorch, it leaves no cycle behind that holds the batch.
    """
    leaves: list[Any] = []
    map_leaves(leaves.append, batch)
    return leaves


def num_bytes_of(batch: Batch) -> int:
    """The bytes that a copy of a batch takes.

    Of arrays of objects the objects count, too, but not what these refer to.
    """
    return sum(map(_num_bytes_of_leaf, leaves_of(batch)))


def _num_bytes_of_leaf(leaf: Any) -> int:
    if isinstance(leaf, np.ndarray) and leaf.dtype.hasobject:
        return leaf.nbytes + sum(map(sys.getsizeof, leaf.flat))
    if isinstance(num_bytes := getattr(leaf, "nbytes", None), int):
        return num_bytes
    if type(leaf).__module__.startswith("tensorflow"):
        import tensorflow as tf

        parts = tf.nest.flatten(leaf, expand_composites=True)
        return sum(_num_bytes_of_leaf(part.numpy()) for part in parts)
    if is_sparse_or_ragged(leaf):
        return sum(map(_num_bytes_of_leaf, keras.tree.flatten(list(vars(leaf).values()))))
    return 0 if leaf is None else sys.getsizeof(leaf)


def copied(batch: Batch, empty: Callable[..., np.ndarray] = np.empty) -> Batch:
    """Copies a batch so that an in-place change of the copy can't be seen in the original.

    Arrays and tensors are copied, even those of TensorFlow, into whose memory its own operations
    write once `tf.data` has it. Arrays of JAX, and sparse and ragged ones of TensorFlow, can't be
    changed and are shared.

    Args:
        batch: What to copy.
        empty: Makes the arrays of the copy, of a shape and a dtype.
    """
    return map_leaves(lambda leaf: _copied_leaf(leaf, empty), batch)


def _copied_leaf(leaf: Any, empty: Callable[..., np.ndarray]) -> Any:
    if isinstance(leaf, np.ndarray):
        is_usual = type(leaf) is np.ndarray and leaf.flags.c_contiguous
        if not is_usual or leaf.nbytes < _LITTLE:
            return leaf.copy(order="K")
        copy = empty(leaf.shape, leaf.dtype)
        np.copyto(copy, leaf)
        return copy
    kind = type(leaf)
    if kind.__module__.startswith("jax"):
        return leaf
    if kind.__module__.startswith("tensorflow") and kind.__name__ == "EagerTensor":
        import tensorflow as tf

        return tf.raw_ops.DeepCopy(x=leaf)
    for method in ("clone", "copy"):  # PyTorch's name for it, and everybody else's
        if hasattr(leaf, method):
            return getattr(leaf, method)()
    return leaf
