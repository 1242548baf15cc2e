"""Which iterators over a stream train, and which only peek ahead.

`tf.data` and Grain don't say when an epoch begins or ends; they make iterators. Each epoch is one
(Grain with `steps_per_epoch`: each `fit()`), and some are only peeks (Keras 3.15,
`trainers/trainer.py` and `trainers/data_adapters/grain_dataset_adapter.py`):

- `tf.data`: none on TensorFlow; on JAX and PyTorch one of one batch, at the start of a `fit()` of
  which the model, its loss or its metrics aren't built yet.
- Grain: the same, and one of two batches before.

Whatever takes the batches may read ahead of training, and what it holds is lost
with its iterator: `tf.data` reads about one batch per CPU core ahead of a parallel `map`.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Peeks(NamedTuple):
    """What may be a peek.

    Attributes:
        most_in_a_row: Iterators that may be peeks without one that surely trains between them.
        most_elements: Elements that one of them may take, those read ahead included.
    """

    most_in_a_row: int
    most_elements: int


NO_PEEKS = Peeks(most_in_a_row=0, most_elements=0)


class Iteration:
    """One iterator over the stream.

    Args:
        peeks: What may be a peek.
        num_elements: After how many it ends; None for never.
    """

    _numbers = itertools.count()

    def __init__(self, peeks: Peeks = NO_PEEKS, num_elements: int | None = None) -> None:
        self.peeks = peeks
        self.num_elements = num_elements
        self.num_taken = 0
        self.number = next(self._numbers)

    @property
    def is_complete(self) -> bool:
        """Whether it took all that it may."""
        return self.num_taken == self.num_elements


class IteratorPeeks(Generic[T]):
    """Tells which iterators over a stream train; they come one after the other.

    A new iterator ends the one before it, goes on after it, and decides what it was. It trained if
    it was read to its end, failed, or took more than a peek may; or if as many as can be peeks
    stand before it already. Otherwise it was a peek, and what it took is served again.

    Args:
        put_back: Has elements served again before the stream goes on.
    """

    def __init__(self, put_back: Callable[[list[T]], None]) -> None:
        self._put_back = put_back
        self._current: Iteration | None = None
        self._seen: list[T] | None = None  # by the current one; None: it is no peek
        self._num_peeks: float = 0  # since the last one that surely trained
        self._last_over = -1  # number of the last one that is over in any case

    def training_begins(self) -> None:
        """All iterators until now only peeked, and the next one trains, if somebody says so."""
        if self._seen:
            self._put_back(self._seen)
        self._seen = self._current = None
        self._num_peeks = math.inf
        self._last_over = Iteration().number

    def may_return(self, iteration: Iteration) -> bool | None:
        """Whether what `iteration` takes next may come again; None where it is over."""
        if iteration is not self._current:
            least = self._last_over + 1 if self._current is None else self._current.number
            if iteration.number < least:
                return None
            self._turn_to(iteration)
        if iteration.is_complete:
            return None
        num_taken = iteration.num_taken + 1
        return self._seen is not None and not _surely_trains(iteration, num_taken)

    def took(self, iteration: Iteration, what: T) -> None:
        """To be called when `iteration` gets an element."""
        iteration.num_taken += 1
        if _surely_trains(iteration, iteration.num_taken):
            self.trains()
        elif self._seen is not None:
            self._seen.append(what)

    def trains(self) -> None:
        """To be called when the current one fails: it was no peek."""
        self._seen = None
        self._num_peeks = 0

    def _turn_to(self, iteration: Iteration) -> None:
        if self._seen:
            self._put_back(self._seen)
            self._num_peeks += 1
        self._current = iteration
        self._seen = [] if self._num_peeks < iteration.peeks.most_in_a_row else None


def _surely_trains(iteration: Iteration, num_taken: int) -> bool:
    return num_taken > iteration.peeks.most_elements or num_taken == iteration.num_elements
