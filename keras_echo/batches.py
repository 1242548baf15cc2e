"""What a batch may look like, and how to copy one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_echo._messages import expected

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


def copied(batch: Batch) -> Batch:
    """Copies a batch so that an in-place change of the copy can't be seen in the original.

    NumPy arrays and PyTorch tensors are copied; JAX arrays and TensorFlow tensors can't be changed
    and are shared.
    """
    return keras.tree.map_structure(_copied_leaf, batch)


def _copied_leaf(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return leaf.copy(order="K")
    if type(leaf).__module__.startswith("jax"):
        return leaf
    for method in ("clone", "copy"):  # PyTorch's name for it, and everybody else's
        if hasattr(leaf, method):
            return getattr(leaf, method)()
    return leaf
