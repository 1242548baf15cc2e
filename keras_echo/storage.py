"""Where the examples of a buffer lie in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_echo._messages import expected

if TYPE_CHECKING:
    from keras_echo.batches import Batch


class Examples:
    """The examples of a batch: rows along the first axis of all its arrays.

    Args:
        batch: Any structure of arrays and None. Tensors become NumPy arrays.

    Attributes:
        batch: The batch with NumPy arrays as its leaves.
        num: How many examples there are.
        kind: The structure, with the dtype and the shape of one example for each leaf.

    Raises:
        ValueError: If the arrays don't have the same first dimension, or it is 0.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = keras.tree.map_structure(_as_array, batch)
        shapes = [leaf.shape for leaf in keras.tree.flatten(self.batch) if leaf is not None]
        lengths = {shape[:1] for shape in shapes}
        if len(lengths) != 1 or lengths <= {(), (0,)}:
            raise ValueError(
                expected(
                    "The arrays of a batch, for echo='example',",
                    "have the same first dimension, the number of examples, and at least one",
                    shapes,
                    "Give every array of the batch one row for each example, or pass echo='batch'",
                )
            )
        self.num = int(*lengths.pop())
        self.kind = keras.tree.map_structure(
            lambda leaf: None if leaf is None else f"{leaf.dtype} {list(leaf.shape[1:])}",
            self.batch,
        )


class Storage:
    """Holds examples of one kind in preallocated arrays, each example once.

    Args:
        like: Examples of that kind.
        capacity: How many examples there is room for.
    """

    def __init__(self, like: Examples, capacity: int) -> None:
        self._kind = like.kind
        self._arrays = keras.tree.map_structure(
            lambda leaf: (
                None if leaf is None else np.empty((capacity, *leaf.shape[1:]), leaf.dtype)
            ),
            like.batch,
        )

    def put(self, slots: np.ndarray, examples: Examples, rows: np.ndarray | slice) -> None:
        """Copies the rows of the examples into the slots.

        Raises:
            ValueError: If the examples are of another kind.
        """
        if examples.kind != self._kind:
            raise ValueError(
                expected(
                    "The examples of the source, for echo='example',",
                    f"all be like the first ones, {self._kind}",
                    examples.kind,
                    "Pad them to one shape (unused labels with -1, for instance), or pass "
                    "echo='batch'",
                )
            )
        arrays = keras.tree.flatten(self._arrays)
        for array, leaf in zip(arrays, keras.tree.flatten(examples.batch), strict=True):
            if array is not None:
                array[slots] = leaf[rows]

    def gather(self, slots: np.ndarray) -> Batch:
        """A new batch of the examples in the slots, which nobody else sees."""
        return keras.tree.map_structure(
            # Any slot is in range, and to have that checked costs a tenth of the time.
            lambda array: None if array is None else np.take(array, slots, axis=0, mode="clip"),
            self._arrays,
        )


def _as_array(leaf: Any) -> np.ndarray | None:
    if leaf is None or isinstance(leaf, np.ndarray):
        return leaf
    array: np.ndarray = keras.ops.convert_to_numpy(leaf)
    return array
