"""Where a stream stood after each of the last batches, for a training that lags behind.

TensorFlow, and JAX on an accelerator, fetch batches before they train on them. Where the stream
stands is then not where training does.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from keras_echo.echoing.state import State


_MOST_AHEAD = 1024  # batches fetched ahead; a training that broke off may never tell of its end


class Standing(NamedTuple):
    """Where the stream stood after some batch.

    Attributes:
        state: The state there.
        factors: Those with which the batches after it were made that have been served since.
    """

    state: State
    factors: tuple[float, ...]


class Trail:
    """The states from the one that training has reached on; none before it is begun."""

    def __init__(self) -> None:
        self._steps: deque[tuple[State, float]] = deque(maxlen=_MOST_AHEAD)

    def begin(self, state: State) -> None:
        """Training stands at this state, and nothing is served ahead of it."""
        self._steps.clear()
        self._steps.append((state.without_batches(), 1.0))

    def end(self) -> None:
        """Nobody asks any more."""
        self._steps.clear()

    def served(self, after: State, factor: float) -> None:
        """A batch was served that was made with this factor; after it, the stream stands here."""
        if self._steps:
            while self._steps and self._steps[-1][0].num_steps >= after.num_steps:
                self._steps.pop()  # what had only been peeked at is served again
            self._steps.append((after.without_batches(), factor))

    def trained(self, num_steps: int) -> None:
        """Training has come so far: what was before is forgotten."""
        while len(self._steps) > 1 and self._steps[0][0].num_steps < num_steps:
            self._steps.popleft()

    def after(self, num_steps: int) -> Standing:
        """Where the stream stood after so many steps.

        Raises:
            LookupError: If that isn't known.
        """
        found: State | None = None
        factors: list[float] = []
        for state, factor in self._steps:
            if found is not None:
                factors.append(factor)
            elif state.num_steps == num_steps:
                found = state
        if found is None:
            raise LookupError(num_steps)
        return Standing(found, tuple(factors))
