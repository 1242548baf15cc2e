"""Serves a stream, and again what was only peeked at.

Before training, Keras reads batches to learn their shapes. `keras_echo.keras_calls` tells these
peeks from training; here they advance nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

_MOST_AHEAD = 32  # elements to pass for a peek at another output


class Tickets(Generic[T]):
    """Serves the elements of a stream, and those again that were only peeked at.

    Args:
        advance: Returns the next element of the stream.
        output: Returns what an element is a use of, to be compared with `is`.

    Attributes:
        is_in_epoch: Whether an epoch, or a peek that looks like one, was begun and hasn't ended.
        is_peek: Whether it is a peek.
    """

    def __init__(self, advance: Callable[[], T], output: Callable[[T], object]) -> None:
        self._advance = advance
        self._output = output
        self._again: list[T] = []
        self._peeked: list[T] = []
        self.is_peek = False
        self.is_in_epoch = False

    def serve(self) -> tuple[T, bool]:
        """What comes next, and whether it comes again."""
        what = self.take()
        if self.is_peek:
            self._peeked.append(what)
        return what, self.is_peek

    def peek(self, index: int) -> T:
        """What will come next; for an index above 0, a use of the output so many after that.

        Without echoing, that is the element so many after the next one. With it, uses of one
        output stand side by side: whoever wants to know how elements differ must see others.
        """
        outputs: list[object] = []
        for place in range(_MOST_AHEAD):
            if place == len(self._again):
                self._again.append(self._advance())
            output = self._output(self._again[place])
            if all(output is not other for other in outputs):
                outputs.append(output)
            if len(outputs) > index:
                break
        return self._again[place]

    def take(self) -> T:
        """What comes next; to whom else it may go is another's business."""
        return self._again.pop(0) if self._again else self._advance()

    def put_back(self, whats: Iterable[T]) -> None:
        """Has these served again before the stream goes on."""
        self._again = [*whats, *self._again]

    def on_epoch_begin(self, *, is_peek: bool) -> None:
        """To be called when an epoch begins, or what looks like one but is a peek."""
        self.on_epoch_end()
        self.is_peek = is_peek
        self.is_in_epoch = True

    def on_epoch_end(self) -> None:
        """To be called when an epoch ends, or a peek that looks like one."""
        self.put_back(self._peeked)
        self._peeked = []
        self.is_peek = self.is_in_epoch = False

    def clear(self) -> None:
        """Forgets what was to be served again: the stream goes on elsewhere, in the same epoch."""
        self._peeked, self._again = [], []

    @property
    def pending(self) -> tuple[T, ...]:
        """What will be served again before the stream goes on."""
        return (*self._peeked, *self._again)
