"""Where the examples of a buffer lie in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np

from keras_echo._messages import expected
from keras_echo.memory.batch import is_sparse_or_ragged, leaves_of, map_leaves
from keras_echo.memory.host import HostMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.memory.batch import Batch


class Examples:
    """The examples of a batch: rows along the first axis of all its arrays.

    Args:
        batch: Any structure of arrays and None. Tensors become NumPy arrays.

    Attributes:
        batch: The batch with NumPy arrays as its leaves.
        num: How many examples there are.
        kind: The structure, with the dtype and the shape of one example for each leaf. Strings of
            any length are of one kind.

    Raises:
        ValueError: If the arrays don't have the same first dimension, it is 0, or one of them is
            sparse or ragged.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = map_leaves(_as_array, batch)
        shapes = [leaf.shape for leaf in leaves_of(self.batch) if leaf is not None]
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
        self.kind = map_leaves(
            lambda leaf: None if leaf is None else f"{_dtype_name(leaf)} {list(leaf.shape[1:])}",
            self.batch,
        )


class Memory(Protocol):
    """Rows of one array."""

    def put(self, slots: np.ndarray, rows: np.ndarray) -> None:
        """Copies rows into the slots."""

    def gather(self, slots: np.ndarray) -> Any:
        """A new array of the rows in the slots, which nobody else sees."""


class Storage:
    """Holds examples of one kind in preallocated arrays, each example once.

    Args:
        like: Examples of that kind.
        capacity: How many examples there is room for.
        allocate: Makes the memory for one array of them.
    """

    def __init__(
        self,
        like: Examples,
        capacity: int,
        allocate: Callable[[np.ndarray, int], Memory] = HostMemory,
    ) -> None:
        self._kind = like.kind
        self._memories = map_leaves(
            lambda leaf: None if leaf is None else allocate(leaf, capacity), like.batch
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
        memories, leaves = leaves_of(self._memories), leaves_of(examples.batch)
        for memory, leaf in zip(memories, leaves, strict=True):
            if memory is not None:
                memory.put(slots, leaf[rows])

    def gather(self, slots: np.ndarray) -> Batch:
        """A new batch of the examples in the slots, which nobody else sees."""
        return map_leaves(lambda memory: memory and memory.gather(slots), self._memories)


def _as_array(leaf: Any) -> np.ndarray | None:
    if leaf is None or isinstance(leaf, np.ndarray):
        return leaf
    if is_sparse_or_ragged(leaf):
        raise ValueError(
            expected(
                "The arrays of a batch, for echo='example',",
                "be dense",
                leaf,
                "Make them dense in the source, padded to one shape, or pass echo='batch'",
            )
        )
    array: np.ndarray = keras.ops.convert_to_numpy(leaf)
    return array


def _dtype_name(array: np.ndarray) -> str:
    return {"S": "bytes", "U": "str"}.get(array.dtype.kind, str(array.dtype))
