"""The stream of a dataset as a `tf.data.Dataset`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_echo._messages import expected
from keras_echo.iterations import Looks

if TYPE_CHECKING:
    from keras_echo.batches import Batch
    from keras_echo.feed import Feed

# A parallel map reads one element per core ahead, and each prefetch behind it one or two.
_LOOKS = Looks(most_in_a_row=1, most_elements=(os.cpu_count() or 1) + 8)


def as_tf_dataset(feed: Feed, num_batches: int, element_spec: Any = None) -> Any:
    """Makes the dataset.

    Args:
        feed: Serves the stream.
        num_batches: Batches in an epoch.
        element_spec: The `tf.TypeSpec`s of a batch; None for those of the next one, with any
            number of examples.

    Raises:
        ImportError: If TensorFlow isn't installed.
        ValueError: If a leaf of that batch has no tensor with a batch dimension.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            expected("tensorflow", "be installed", error, "pip install tensorflow, or use as_grain")
        ) from error
    if element_spec is None:
        element_spec = keras.tree.map_structure(_spec, _tensors(feed.first()))
    dataset = tf.data.Dataset.from_generator(
        lambda: map(_tensors, feed.iterate(_LOOKS, num_batches)), output_signature=element_spec
    )
    return dataset.apply(tf.data.experimental.assert_cardinality(num_batches))


def _tensors(batch: Batch) -> Batch:
    """NumPy arrays, and tuples for lists, which `tf.data` would make tensors of."""
    return keras.tree.lists_to_tuples(keras.tree.map_structure(_array, batch))


def _array(leaf: Any) -> np.ndarray | None:
    if leaf is None:
        return None
    # Echoed examples may lie on the device.
    return keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else np.asarray(leaf)


def _spec(array: np.ndarray | None) -> Any:
    import tensorflow as tf

    if array is None:
        return tf.type_spec_from_value(None)
    is_text = array.dtype.kind in "SU" or (
        array.dtype.kind == "O" and all(isinstance(item, (str, bytes)) for item in array.flat)
    )
    if array.ndim == 0 or (array.dtype.kind == "O" and not is_text):
        raise ValueError(
            expected(
                "All of a batch",
                "be dense arrays of numbers or strings with a row for each example, or None",
                array,
                "Return such arrays from the source, or pass the dataset itself to fit()",
            )
        )
    return tf.TensorSpec((None, *array.shape[1:]), tf.string if is_text else array.dtype)
