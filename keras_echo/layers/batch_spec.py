"""What the batches of a layer look like: structure, shapes and dtypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_echo._messages import expected


def as_tensors(batch: Any) -> Any:
    """Converts the arrays in a structure to tensors; keeps symbolic tensors and None."""
    return keras.tree.map_structure(_as_tensor, batch)


def spec(leaf: Any) -> keras.KerasTensor | None:
    """Shape and dtype of a tensor; None of None."""
    if leaf is None:
        return None
    return keras.KerasTensor(leaf.shape, keras.backend.standardize_dtype(leaf.dtype))


def tensors(batch: Any) -> list[Any]:
    """The leaves of a structure, without None."""
    return [leaf for leaf in keras.tree.flatten(batch) if leaf is not None]


@dataclass(frozen=True)
class BatchSpec:
    """The structure of a batch, and the shapes and dtypes of its tensors.

    Attributes:
        structure: `keras.KerasTensor`s and None, in the structure of the batch. Inside this
            object, Keras doesn't wrap it, which would change its types.
    """

    structure: Any

    @classmethod
    def of(cls, batch: Any) -> BatchSpec:
        """The specification of a batch of tensors or symbolic tensors.

        Raises:
            ValueError: If there are no tensors in it, or some without an axis of examples.
        """
        leaves = tensors(batch)
        if not leaves or not all(len(leaf.shape) for leaf in leaves):
            raise ValueError(
                expected(
                    "A batch for EchoBuffer",
                    "consist of tensors with examples along the first axis",
                    keras.tree.map_structure(spec, batch),
                    "Give each example a row in every tensor",
                )
            )
        return cls(keras.tree.map_structure(spec, batch))

    @property
    def leaves(self) -> list[keras.KerasTensor]:
        """The specifications of all tensors."""
        return tensors(self.structure)

    def packed(self, leaves: list[Any]) -> Any:
        """Puts tensors, one for each of `leaves`, into the structure."""
        left = iter(leaves)
        flat = [leaf if leaf is None else next(left) for leaf in keras.tree.flatten(self.structure)]
        return keras.tree.pack_sequence_as(self.structure, flat)

    def check(self, batch: Any) -> None:
        """Raises ValueError if `batch` differs in more than the number of examples."""
        received = keras.tree.map_structure(spec, batch)
        try:
            keras.tree.assert_same_structure(received, self.structure)
            is_like = all(
                leaf.shape[1:] == own.shape[1:] and leaf.dtype == own.dtype
                for leaf, own in zip(tensors(received), self.leaves, strict=True)
            )
        except (ValueError, TypeError):
            is_like = False
        if not is_like or len({leaf.shape[0] for leaf in tensors(received)}) > 1:
            raise ValueError(
                expected(
                    "A batch for EchoBuffer",
                    f"be like the first one but for the batch size, {self.structure}",
                    received,
                    "Pad examples to one shape, and keep structure and dtypes",
                )
            )


def _as_tensor(leaf: Any) -> Any:
    if leaf is None or isinstance(leaf, keras.KerasTensor):
        return leaf
    return ops.convert_to_tensor(leaf)
