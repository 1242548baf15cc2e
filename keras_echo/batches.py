"""What a batch may look like, and how to copy one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_echo._messages import expected

if TYPE_CHECKING:
    from collections.abc import Callable

Batch = Any
"""Whatever `fit()` takes from a `PyDataset`: `(x,)`, `(x, y)`, `(x, y, sample_weight)`, a dict or
an array. x, y and sample_weight are arrays, or nested structures of arrays and None."""


def checked(batch: Batch) -> Batch:
    """Returns `batch` if `fit()` can train on its structure.

    Raises:
        ValueError: If it can't.
    """
    if isinstance(batch, (dict, np.ndarray)):
        return batch
    if isinstance(batch, (tuple, list)) and len(batch) in (1, 2, 3):
        return batch
    raise ValueError(
        expected(
            "A batch of the source",
            "be a tuple (x,), (x, y) or (x, y, sample_weight), a dict or a NumPy array",
            batch,
            "Return whole batches from the source, in the form that Model.fit() takes",
        )
    )


def copied(batch: Batch, empty: Callable[..., np.ndarray] = np.empty) -> Batch:
    """Copies a batch so that an in-place change of the copy can't be seen in the original.

    NumPy arrays and PyTorch tensors are copied; JAX arrays and TensorFlow tensors can't be changed
    and are shared.

    Args:
        batch: What to copy.
        empty: Makes the arrays of the copy, of a shape and a dtype.
    """
    return keras.tree.map_structure(lambda leaf: _copied_leaf(leaf, empty), batch)


def _copied_leaf(leaf: Any, empty: Callable[..., np.ndarray]) -> Any:
    if isinstance(leaf, np.ndarray):
        if type(leaf) is not np.ndarray or not leaf.flags.c_contiguous:
            return leaf.copy(order="K")
        copy = empty(leaf.shape, leaf.dtype)
        np.copyto(copy, leaf)
        return copy
    if type(leaf).__module__.startswith("jax"):
        return leaf
    for method in ("clone", "copy"):  # PyTorch's name for it, and everybody else's
        if hasattr(leaf, method):
            return getattr(leaf, method)()
    return leaf
