"""Serves a stream, and again what was only peeked at.

Before training, Keras reads batches to learn their shapes. `keras_echo.serving.keras_calls` tells
these peeks from training; here they advance nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Element(Protocol):
    """One element of a stream."""

    @property
    def output(self) -> object:
        """What it is a use of, to be compared with `is`."""

    @property
    def before(self) -> Any:
        """Where the stream stands before it."""

    @property
    def after(self) -> Any:
        """Where the stream stands after it."""


T = TypeVar("T", bound=Element)

_MOST_AHEAD = 32  # elements to pass for a peek at another output


class IndexPeeks(Generic[T]):
    """Serves the elements of a stream, and those again that were only peeked at.

    To serve one takes two steps, of which an interruption can come between any two: `next` changes
    nothing, and may be called again; `moved_on` is a single step.

    Args:
        advance: Returns the next element of the stream.
        standing: Where the stream stands.

    Attributes:
        standing: Where it stands after the last element that was used.
        ahead: What was made and not used yet.
        is_in_epoch: Whether an epoch, or a peek that looks like one, was begun and hasn't ended.
        is_peek: Whether it is a peek.
    """

    def __init__(self, advance: Callable[[], T], standing: Any) -> None:
        self._advance = advance
        self.standing = standing
        self.ahead: tuple[T, ...] = ()
        self._num_peeked = 0  # how much of that a peek that looks like an epoch has passed
        self.is_peek = False
        self.is_in_epoch = False

    def next(self) -> T:
        """What comes next, until `moved_on`."""
        return self._at(self._num_peeked)

    def moved_on(self) -> None:
        """To be called when somebody has got what `next` returned; in a peek, it comes again."""
        if self.is_peek:
            self._num_peeked += 1
            return
        used, ahead = self.ahead[0].after, self.ahead[1:]
        # No interruption comes between two assignments.
        self.standing, self.ahead = used, ahead

    def peek(self, index: int) -> T:
        """What will come next; for an index above 0, a use of the output so many after that.

        Without echoing, that is the element so many after the next one. With it, uses of one
        output stand side by side: whoever wants to know how elements differ must see others.
        """
        outputs: list[object] = []
        for place in range(_MOST_AHEAD):
            output = self._at(place).output
            if all(output is not other for other in outputs):
                outputs.append(output)
            if len(outputs) > index:
                break
        return self._at(place)

    def put_back(self, whats: Sequence[T]) -> None:
        """Has these, which were the last to be used, served again before the stream goes on."""
        if whats:
            before, ahead = whats[0].before, (*whats, *self.ahead)
            self.standing, self.ahead = before, ahead

    def on_epoch_begin(self, *, is_peek: bool) -> None:
        """To be called when an epoch begins, or what looks like one but is a peek."""
        self._num_peeked = 0
        self.is_peek = is_peek
        self.is_in_epoch = True

    def on_epoch_end(self) -> None:
        """To be called when an epoch ends, or a peek that looks like one."""
        self._num_peeked = 0
        self.is_peek = self.is_in_epoch = False

    def go_on_from(self, standing: Any) -> None:
        """Forgets what was to be served again: the stream goes on elsewhere, in the same epoch."""
        self.standing, self.ahead, self._num_peeked = standing, (), 0

    def _at(self, place: int) -> T:
        while place >= len(self.ahead):
            self.ahead = (*self.ahead, self._advance())
        return self.ahead[place]
