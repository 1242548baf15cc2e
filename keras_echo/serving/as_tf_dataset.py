"""The stream of a dataset as a `tf.data.Dataset`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_echo._messages import expected
from keras_echo.serving.fit_input import as_tensorflow_takes
from keras_echo.serving.iterator_peeks import Peeks

if TYPE_CHECKING:
    from keras_echo.memory.batch import Batch
    from keras_echo.serving.feed import Feed

# A parallel map reads one element per core ahead, and each prefetch after it one or two.
_PEEKS = Peeks(most_in_a_row=1, most_elements=(os.cpu_count() or 1) + 8)


def as_tf_dataset(feed: Feed, num_batches: int, element_spec: Any = None) -> Any:
    """Makes the dataset.

    Args:
        feed: Serves the stream.
        num_batches: Batches in an epoch.
        element_spec: The `tf.TypeSpec`s of a batch; None for those of the next one, with any
            number of examples.

    Raises:
        ImportError: If TensorFlow isn't installed.
        ValueError: If no tensor with a batch dimension can be made of a leaf of that batch.
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
        lambda: map(_tensors, feed.iterate(_PEEKS, num_batches)), output_signature=element_spec
    )
    return dataset.apply(tf.data.experimental.assert_cardinality(num_batches))


def _tensors(batch: Batch) -> Batch:
    """Arrays and tensors of TensorFlow; tuples for lists, which `tf.data` would make tensors of."""
    return keras.tree.lists_to_tuples(keras.tree.map_structure(_tensor, batch))


def _tensor(leaf: Any) -> Any:
    import tensorflow as tf

    if leaf is None:
        return None
    leaf = as_tensorflow_takes(leaf)
    if tf.is_tensor(leaf):
        return leaf
    # Echoed examples may lie on the device.
    return keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else np.asarray(leaf)


def _spec(leaf: Any) -> Any:
    import tensorflow as tf

    if leaf is None:
        return tf.type_spec_from_value(None)
    if not len(leaf.shape) or (isinstance(leaf, np.ndarray) and leaf.dtype.kind == "O"):
        raise ValueError(
            expected(
                "All of a batch",
                "be arrays of numbers or strings with a row for each example, or None",
                leaf,
                "Return such arrays from the source, or pass the dataset itself to fit()",
            )
        )
    shape = [None, *leaf.shape[1:]]
    match tf.type_spec_from_value(leaf):
        case tf.RaggedTensorSpec() as spec:
            return tf.RaggedTensorSpec(shape, spec.dtype, spec.ragged_rank, spec.row_splits_dtype)
        case spec:
            return type(spec)(shape, spec.dtype)
