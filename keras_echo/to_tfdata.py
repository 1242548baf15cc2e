"""A stream of batches as a `tf.data.Dataset`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_echo._messages import expected
from keras_echo.iterations import Looks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keras_echo.batches import Batch

# A parallel map reads one element per core ahead, and each prefetch behind it one or two.
LOOKS = Looks(most_in_a_row=1, most_elements=(os.cpu_count() or 1) + 8)


def as_tf_dataset(
    iterate: Callable[[], Iterator[Batch]], num_batches: int, first: Batch, element_spec: Any
) -> Any:
    """Makes the dataset.

    Args:
        iterate: Begins an epoch; returns an iterator over its batches.
        num_batches: How many those are.
        first: A batch that tells structure, dtypes and shapes.
        element_spec: The `tf.TypeSpec`s of a batch; None for those of `first`, with any number of
            examples.

    Raises:
        ImportError: If TensorFlow isn't installed.
        ValueError: If a leaf of `first` has no tensor with a batch dimension.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            expected("tensorflow", "be installed", error, "pip install tensorflow, or use as_grain")
        ) from error

    def spec(leaf: Any) -> Any:
        if leaf is None:
            return tf.type_spec_from_value(None)
        array = np.asarray(leaf)
        try:
            dtype = tf.string if array.dtype.kind in "OSU" else tf.as_dtype(array.dtype)
            return tf.TensorSpec((None, *array.shape[1:]), dtype) if array.ndim else 1 / 0
        except (TypeError, ZeroDivisionError):
            raise ValueError(
                expected(
                    "A leaf of a batch",
                    "be an array of numbers or strings with a row for each example, or None",
                    leaf,
                    "Return dense arrays from the source, or pass the dataset itself to fit()",
                )
            ) from None

    if element_spec is None:
        element_spec = keras.tree.map_structure(spec, _tensors(first))
    dataset = tf.data.Dataset.from_generator(
        lambda: map(_tensors, iterate()), output_signature=element_spec
    )
    return dataset.apply(tf.data.experimental.assert_cardinality(num_batches))


def _tensors(batch: Batch) -> Batch:
    """What `tf.data` takes for a batch: NumPy arrays, and tuples for lists, which it would stack."""
    arrays = keras.tree.map_structure(
        lambda leaf: None if leaf is None else np.asarray(leaf), batch
    )
    return keras.tree.lists_to_tuples(arrays)
