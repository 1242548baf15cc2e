"""Which calls of Keras are steps, and which are only looks ahead.

Before training, Keras reads one or two batches to learn their shapes. It does not say so, but the
order of its calls does (Keras 3.15, `trainers/epoch_iterator.py` and
`trainers/data_adapters/py_dataset_adapter.py`; B and E are `on_epoch_begin` and `on_epoch_end`):

| backend | fit() on a new model | fit() on a built one |
|---|---|---|
| TensorFlow | 0 1 E, then B ... E for every epoch | the same |
| JAX, PyTorch | B i E, then B ... E for every epoch | E, then B ... E for every epoch |

`predict()` on TensorFlow calls 0 1 B ... E.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

_MOST_LOOKS = 2  # batches in one look
_MOST_RETURNS = 2  # a tiny training loop of the user's own can't be told from a look


class _Ticket(NamedTuple, Generic[T]):
    what: T
    num_returns: int  # how often it was served before


class Tickets(Generic[T]):
    """Serves the elements of a stream, and those again that Keras only looked at.

    A look outside an epoch begins with index 0 and takes at most two elements. A look inside an
    epoch takes one; since an epoch may really have one step, that counts as a look only after a
    longer epoch or at the very beginning.

    Args:
        advance: Returns the next element of the stream.
    """

    def __init__(self, advance: Callable[[], T]) -> None:
        self._advance = advance
        self._again: list[_Ticket[T]] = []
        self._looked_at: list[_Ticket[T]] | None = []  # None: too many for a look
        self._is_in_epoch = False
        self._may_be_look = True

    def serve(self, index: int) -> tuple[T, bool]:
        """What comes next, whatever the index, and whether it may come again."""
        what, num_returns = self._next()
        if not self._is_in_epoch and index == 0:
            self._looked_at = []
        seen = self._looked_at
        if (
            seen is None
            or len(seen) == _MOST_LOOKS
            or not (self._is_in_epoch or index == len(seen))
        ):
            self._looked_at = None
            return what, False
        seen.append(_Ticket(what, num_returns))
        return what, num_returns < _MOST_RETURNS

    def take(self) -> T:
        """What comes next; to whom else it may go is another's business."""
        self._looked_at = None
        return self._next().what

    def put_back(self, whats: Iterable[T]) -> None:
        """Has these served again before the stream goes on."""
        self._again = [_Ticket(what, -1) for what in whats] + self._again

    def on_epoch_begin(self) -> None:
        """To be called when Keras does."""
        if not self._is_in_epoch:
            self._return()
        self._looked_at = []
        self._is_in_epoch = True

    def on_epoch_end(self) -> None:
        """To be called when Keras does."""
        if not self._is_in_epoch:
            self._return()
            self._may_be_look = False  # this call opened a fit(), and what follows is an epoch
        elif self._looked_at is not None and len(self._looked_at) == 1:
            if self._may_be_look:
                self._return()
            self._may_be_look = False
        else:
            self._may_be_look = True
        self._looked_at = []
        self._is_in_epoch = False

    def _next(self) -> _Ticket[T]:
        if self._again:
            what, num_returns = self._again.pop(0)
            return _Ticket(what, num_returns + 1)
        return _Ticket(self._advance(), 0)

    def _return(self) -> None:
        returned = [
            ticket for ticket in self._looked_at or () if ticket.num_returns < _MOST_RETURNS
        ]
        self._again = returned + self._again

    @property
    def pending(self) -> tuple[T, ...]:
        """What will be served again before the stream goes on."""
        return tuple(ticket.what for ticket in self._again)
