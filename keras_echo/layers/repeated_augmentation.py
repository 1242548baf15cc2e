"""`RepeatedAugmentation`: one batch becomes several differently augmented ones."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_echo._checks import check_count


@keras.saving.register_keras_serializable(package="keras_echo")
class RepeatedAugmentation(keras.layers.Wrapper):
    """Turns a batch of n examples into n * copies differently augmented ones, side by side.

    The echo after the reading and before the augmentation, within one optimizer step (repeated
    augmentation, Hoffer et al., arXiv 1901.09335). The layer is called once per copy rather than
    on a repeated batch: layers that draw once per call (`keras.layers.RandomCrop`) or mix examples
    (`MixUp`) give different copies too.

    Takes what `layer` takes: an array, or a dict such as `{"images": ..., "labels": ...,
    "bounding_boxes": ...}`, which is not changed in place; or a tuple `(x, y)` or
    `(x, y, sample_weight)`, of which only x is augmented and the rest repeated.

    Args:
        layer: The augmentation, such as `keras.layers.RandomFlip()` or a `keras.layers.Pipeline`.
        copies: How many copies of each example to return; those of one example lie side by side.

    Call arguments:
        inputs: A batch, examples along the first axis.
        training: With False, `layer` is called once with `training=False`, so that random layers
            do nothing, and the number of examples stays. True by default, as in Keras's own
            augmentation layers.

    Examples:
        >>> augment = RepeatedAugmentation(keras.layers.RandomFlip(seed=0), copies=4)
        >>> augment({"images": images, "labels": labels})["images"].shape[0]  # 4 * len(images)
    """

    def __init__(self, layer: keras.layers.Layer, copies: int, **kwargs: Any) -> None:
        super().__init__(layer, autocast=False, **kwargs)
        check_count("copies", copies, 1)
        self.copies = copies

    def build(self, input_shape: Any) -> None:
        """Creates nothing: the layer builds itself when it is called."""

    def call(self, inputs: Any, training: bool = True) -> Any:
        """See the class."""
        if not training:
            return self._augmented(inputs)
        copies = [self._augmented(inputs) for _ in range(self.copies)]
        return keras.tree.map_structure(_side_by_side, *copies)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer, JSON-serialisable."""
        return {**super().get_config(), "copies": self.copies}

    def _augmented(self, inputs: Any) -> Any:
        # Keras's layers change dicts in place: each call gets dicts of its own.
        inputs = keras.tree.map_structure(lambda leaf: leaf, inputs)
        if isinstance(inputs, (tuple, list)):
            return (self.layer(inputs[0]), *inputs[1:])
        return self.layer(inputs)


def _side_by_side(*copies: Any) -> Any:
    """Interleaves tensors of one shape along their first axis; None stays None."""
    if copies[0] is None:
        return None
    stacked = ops.stack(copies, axis=1)
    return ops.reshape(stacked, (-1, *ops.shape(stacked)[2:]))
