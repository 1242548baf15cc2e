"""Sources of which any batch can be read at any time: `PyDataset` and arrays."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_echo._messages import expected
from keras_echo.memory.batch import copied, is_sparse_or_ragged
from keras_echo.reading.source import Parallelism, empty, named
from keras_echo.reading.state_json import from_json, to_json
from keras_echo.reading.stream import START, Barrier, Bookmark, Fresh, Position, Read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class PyDatasetSource:
    """A `keras.utils.PyDataset`: random access, read in an order drawn anew for each pass.

    One with `get_state` and `set_state` is asked for its state at the beginning of each pass, after
    its hooks, and is set to it before batches of that pass are read again.
    """

    is_sequential = False
    lends = True
    unseeded = None

    def __init__(self, dataset: keras.utils.PyDataset, *, shuffle: bool) -> None:
        self._dataset = dataset
        self._shuffle = shuffle
        self._told = _Told()
        self._has_state = hasattr(dataset, "get_state") and hasattr(dataset, "set_state")
        self._bookmark: Bookmark | None = None  # of the pass that is read
        self._begin: tuple[Bookmark, ...] = ()  # of the first pass, before anybody took a batch
        if self.length == 0:
            raise ValueError(empty(dataset))

    @property
    def length(self) -> int | None:
        try:
            length: int | None = self._dataset.num_batches
        except NotImplementedError:  # Keras's own way to say so
            return None
        return length

    @property
    def parallelism(self) -> Parallelism:
        dataset = self._dataset
        return Parallelism(
            max(dataset.workers, 1), dataset.use_multiprocessing, dataset.max_queue_size
        )

    @property
    def no_cache(self) -> tuple[str, str] | None:
        if self.length is None:
            return "a PyDataset without a length", "Give it a __len__"
        if self._has_hooks:
            return (
                "a PyDataset with its own on_epoch_end or on_epoch_begin, which may change what "
                "its indices mean",
                "Drop the hooks, and leave the order to shuffle=True",
            )
        if self._has_state:
            return (
                "a PyDataset with get_state and set_state, on which its batches may depend",
                "Drop them, and leave the order to shuffle=True",
            )
        return None

    def can_go_back_to(self, position: Position) -> bool:
        has_passed = self._has_hooks and position.number < self._told.last_pass
        return self._has_state or not has_passed

    def reads(
        self,
        start: Position,
        first: tuple[Position, ...],
        seed: int,
        bookmarks: tuple[Bookmark, ...] = (),
    ) -> Iterator[Read | Barrier]:
        known = {}
        if self._has_state:
            known = {each.position.number: each for each in bookmarks or self._begin}
        number = -1
        for position in first:
            if position.number > number and self._changes:
                yield Barrier(partial(self._go_to, position.number, known))
            number = position.number
            yield self._read_at(position, seed)
        if self._changes and start.number in known:
            if start.number > number:
                yield Barrier(partial(self._go_to, start.number, known))
        elif self._changes:
            yield Barrier(partial(self._begin_at, start))
        number, ordinal = start
        while True:
            length = self.length  # a source may change it between passes
            for place in itertools.count(ordinal) if length is None else range(ordinal, length):
                yield self._read_at(Position(number, place), seed)
            number, ordinal = number + 1, 0
            if self._changes:
                yield Barrier(partial(self._tell, number))

    def read(self, read: Read) -> Fresh:
        assert read.position is not None
        with named(read.index):
            return Fresh(read.position, self._dataset[read.index], bookmark=read.bookmark)

    def position_of(self, read: Read) -> Position:
        assert read.position is not None
        return read.position

    def index_of(self, position: Position, seed: int) -> int:
        index: int = self._read_at(position, seed).index
        return index

    def index_now(self, read: Read) -> int:
        index: int = read.index
        return index

    def _read_at(self, position: Position, seed: int) -> Read:
        length = self.length
        index = position.ordinal
        if length is not None and self._shuffle:
            index = int(_permutation(length, seed, position.number)[position.ordinal])
        return Read(position, index, self._bookmark)

    @property
    def _changes(self) -> bool:
        """Whether what an index means may change from pass to pass."""
        return self._has_hooks or self._has_state

    @property
    def _has_hooks(self) -> bool:
        kind, base = type(self._dataset), keras.utils.PyDataset
        return (kind.on_epoch_end, kind.on_epoch_begin) != (base.on_epoch_end, base.on_epoch_begin)

    def _tell(self, number: int) -> None:
        """Calls the hooks of all passes up to this one that they weren't called for yet."""
        if number < self._told.last_pass and not self._told.has_warned:
            self._told.has_warned = True
            warnings.warn(
                _cannot_go_back(number, self._told.last_pass), RuntimeWarning, stacklevel=2
            )
        while self._told.last_pass < number:
            # In this order, as fit() does, which also begins with an end.
            self._dataset.on_epoch_end()
            self._dataset.on_epoch_begin()
            self._told.last_pass += 1
        self._note(Position(number, 0))

    def _note(self, begin: Position) -> None:
        """Notes the source's state at the beginning of a pass, if it has one."""
        if self._has_state and (self._bookmark is None or self._bookmark.position != begin):
            self._bookmark = Bookmark(begin, to_json(self._dataset.get_state()))
            if begin == START:
                self._begin = (self._bookmark,)

    def _go_to(self, number: int, known: dict[int, Bookmark]) -> None:
        """Has a pass begin, with the state that is known of its beginning, if any is."""
        if number not in known or number > self._told.last_pass:
            self._tell(number)
        if number in known:
            self._bookmark = known[number]
            self._dataset.set_state(from_json(self._bookmark.state))
            self._told.last_pass = number

    def _begin_at(self, start: Position) -> None:
        # The end of a pass needs nothing of it, so that the next one may have begun.
        is_over = start.ordinal == self.length and start.number < self._told.last_pass
        number = start.number + is_over
        self._tell(number)
        self._told.last_pass = number


@dataclass
class _Told:
    """What a source was told of.

    Attributes:
        last_pass: Number of the last pass that its hooks were called for.
        has_warned: Whether the user knows that a pass can't be had again.
    """

    last_pass: int = -1
    has_warned: bool = False


def _cannot_go_back(number: int, last_pass: int) -> str:
    return (
        f"Batches of pass {number} are read again, but the source's own on_epoch_end or "
        f"on_epoch_begin was called for pass {last_pass} already, so they may not be the same "
        "ones. To go back exactly, load the state into a newly built dataset, or leave the order "
        "to keras_echo: drop the hooks and pass shuffle=True."
    )


class ArraySource:
    """Arrays that fit in memory: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, each any structure.

    They are read as `fit()` reads arrays: those of floats as `keras.config.floatx()`, a column of
    pandas with shape (rows, 1), and sparse and ragged ones as they are. Shuffling draws a new order
    of the examples, not of the batches, for each pass.
    """

    is_sequential = False
    lends = False
    parallelism = Parallelism(workers=1, use_multiprocessing=False, max_queue_size=10)
    no_cache = "arrays, which lie in memory already", "Leave it out"
    unseeded = None

    def __init__(self, arrays: Any, *, batch_size: int, shuffle: bool) -> None:
        self._arrays = _map_arrays(_sliceable, arrays)
        shapes = [
            tuple(leaf.shape) for leaf in keras.tree.flatten(self._arrays) if leaf is not None
        ]
        lengths = {shape[:1] for shape in shapes}
        if len(lengths) != 1 or () in lengths:
            raise ValueError(
                expected(
                    "The arrays of the source",
                    "have the same first dimension, the number of examples",
                    shapes,
                    "Pass (x, y) or (x, y, sample_weight) with one row for each example",
                )
            )
        self._num_examples = int(*lengths.pop())
        self._batch_size = batch_size
        self._shuffle = shuffle
        if self._num_examples == 0:
            raise ValueError(empty(arrays))

    @property
    def length(self) -> int:
        return -(-self._num_examples // self._batch_size)

    def can_go_back_to(self, position: Position) -> bool:
        return True

    def reads(
        self,
        start: Position,
        first: tuple[Position, ...],
        seed: int,
        bookmarks: tuple[Bookmark, ...] = (),
    ) -> Iterator[Read]:
        for position in first:
            yield self._read_at(position, seed)
        number, ordinal = start
        while True:
            for place in range(ordinal, self.length):
                yield self._read_at(Position(number, place), seed)
            number, ordinal = number + 1, 0

    def read(self, read: Read) -> Fresh:
        assert read.position is not None
        return Fresh(read.position, _map_arrays(lambda leaf: _rows(leaf, read.index), self._arrays))

    def position_of(self, read: Read) -> Position:
        assert read.position is not None
        return read.position

    def index_of(self, position: Position, seed: int) -> int:
        return position.ordinal

    def index_now(self, read: Read) -> int:
        return self.position_of(read).ordinal

    def _read_at(self, position: Position, seed: int) -> Read:
        begin = position.ordinal * self._batch_size
        rows = slice(begin, begin + self._batch_size)
        if not self._shuffle:
            return Read(position, rows)
        return Read(position, _permutation(self._num_examples, seed, position.number)[rows])


def _map_arrays(function: Callable[[Any], Any], arrays: Any) -> Any:
    return keras.tree.map_structure(lambda leaf: None if leaf is None else function(leaf), arrays)


def _sliceable(leaf: Any) -> Any:
    """The array that rows can be taken from, with floats as `fit()` has them."""
    if hasattr(leaf, "tocsr"):  # SciPy's; of its formats, only some have rows
        leaf = leaf.tocsr()
    elif type(leaf).__name__ == "SparseTensor":
        raise TypeError(
            expected(
                "The arrays of the source",
                "be no tf.SparseTensor",
                leaf,
                "Pass tf.data.Dataset.from_tensor_slices((x, y)).batch(32), or SciPy's csr_matrix",
            )
        )
    elif hasattr(leaf, "iloc"):  # pandas
        leaf = leaf.to_numpy()[:, None] if leaf.ndim == 1 else leaf.to_numpy()
    elif hasattr(leaf, "detach"):  # PyTorch, of which NumPy takes neither all devices nor bfloat16
        leaf = leaf.detach().cpu()
        leaf = np.asarray(leaf.float() if str(leaf.dtype) == "torch.bfloat16" else leaf)
    elif not is_sparse_or_ragged(leaf):
        leaf = np.asarray(leaf)
    name, floatx = leaf.dtype.name, keras.config.floatx()
    if name == floatx or not name.startswith(("float", "bfloat")):
        return leaf
    if type(leaf).__name__ == "RaggedTensor":
        import tensorflow as tf

        return tf.cast(leaf, floatx)
    return leaf.astype(floatx)


def _rows(leaf: Any, rows: slice | np.ndarray) -> Any:
    if isinstance(rows, slice):
        # A slice is a view: without the copy, an in-place change would reach the user's array.
        return copied(leaf[rows])
    if type(leaf).__name__ == "RaggedTensor":
        import tensorflow as tf

        return tf.gather(leaf, rows)
    return leaf[rows]


@lru_cache(maxsize=4)
def _permutation(length: int, seed: int, number: int) -> np.ndarray:
    return np.random.default_rng([seed, number]).permutation(length)
