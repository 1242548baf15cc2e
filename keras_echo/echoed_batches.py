"""Batch echoing on real batches: echo, shuffle, and where that stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from keras_echo.echoing import Echo, ShuffleBuffer, Use

if TYPE_CHECKING:
    from keras_echo.batches import Batch
    from keras_echo.fresh import FreshBatches
    from keras_echo.placement import Placement, Waiting
    from keras_echo.state import State
    from keras_echo.stream import Fresh, Position


class EchoedBatches(Iterator[tuple[Use["Waiting"], "State"]]):
    """The uses of whole batches, each with the state of the stream behind it.

    Args:
        fresh: Yields once more what `state` holds, in the order of `state.positions_held`, and the
            fresh batches from `state.position` on.
        state: Where to begin.
        factor: Returns the echoing factor.
        shuffle_buffer: Batches in the shuffle buffer.
        placement: Where batches wait for their reuse.
    """

    def __init__(
        self,
        fresh: FreshBatches,
        state: State,
        factor: Callable[[], float],
        shuffle_buffer: int,
        placement: Placement,
    ) -> None:
        self._fresh = fresh
        self._state = state
        self._shuffle_buffer = shuffle_buffer
        self._place = placement.begin()
        self._factor = factor
        self._held: dict[Position, Fresh | None] = {}
        self._stream: tuple[Echo[Fresh], ShuffleBuffer[Use[Fresh]]] | None = None

    def __next__(self) -> tuple[Use[Waiting], State]:
        if self._stream is None:
            self._stream = self._begun()
        echo, uses = self._stream
        use = next(uses)
        self._state = self._state_behind(echo, uses)
        return Use(use.item.batch, use.is_only), self._state

    def _begun(self) -> tuple[Echo[Fresh], ShuffleBuffer[Use[Fresh]]]:
        """The stages; what the shuffle buffer held when the stream was interrupted is read again.

        What can't be read again is left out, with its uses.
        """
        state = self._state
        waiting = partial(_waiting, self._place)
        for position in state.positions_held[len(self._held) :]:
            fresh = self._fresh.again()
            self._held[position] = fresh and waiting(fresh)
        first = next(self._fresh)
        echo = Echo(
            map(waiting, chain((first,), self._fresh)),
            self._factor,
            credit=state.credit,
            num_uses=state.num_uses if first.position == state.position else 0,
            num_fresh=state.num_fresh,
        )
        uses = ShuffleBuffer(
            echo,
            self._shuffle_buffer,
            seed=state.seed,
            num_drawn=state.num_drawn,
            held=tuple(
                Use(fresh, use.is_only)
                for use in state.held
                if (fresh := self._held[use.item.position]) is not None
            ),
        )
        return echo, uses

    def _state_behind(self, echo: Echo[Fresh], uses: ShuffleBuffer[Use[Fresh]]) -> State:
        position = self._fresh.position or self._state.position
        if echo.num_uses == 0:
            position = position.next
        return replace(
            self._state,
            position=position,
            num_uses=echo.num_uses,
            credit=echo.credit,
            num_drawn=uses.num_drawn,
            held=uses.held,
            num_steps=self._state.num_steps + 1,
            num_fresh=echo.num_fresh,
        )


# Not a method: the stages would refer to each other in a circle, which holds batches for long.
def _waiting(place: Callable[[Batch, bool], Waiting], fresh: Fresh) -> Fresh:
    return fresh._replace(batch=place(fresh.batch, fresh.is_ours))
