"""Batch echoing on real batches: echo, shuffle, and where that stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from keras_echo.echoing import Echo, ShuffleBuffer, Use

if TYPE_CHECKING:
    from keras_echo.batches import Batch
    from keras_echo.fresh import FreshBatches
    from keras_echo.placement import Waiting
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
        place: Returns a batch that waits where it is to wait for its reuse.
    """

    def __init__(
        self,
        fresh: FreshBatches,
        state: State,
        factor: Callable[[], float],
        shuffle_buffer: int,
        place: Callable[[Batch, bool], Waiting],
    ) -> None:
        self._fresh = fresh
        self._state = state
        self._shuffle_buffer = shuffle_buffer
        self._place = place
        self._held: dict[Position, Fresh | None] = {}
        self._echo = Echo(
            map(self._placed, fresh),
            factor,
            credit=state.credit,
            num_uses=state.num_uses,
            num_fresh=state.num_fresh,
        )
        self._has_begun = False
        self._uses: ShuffleBuffer[Use[Fresh]] | None = None

    def __next__(self) -> tuple[Use[Waiting], State]:
        if self._uses is None:
            self._uses = self._restored()
        use = next(self._uses)
        self._state = self._state_behind(self._uses)
        return Use(use.item.batch, use.is_only), self._state

    def _placed(self, fresh: Fresh) -> Fresh:
        if self._fresh.position != self._state.position and not self._has_begun:
            self._echo.num_uses = 0  # the batch in use can't be read again: its uses go with it
        self._has_begun = True
        return self._waiting(fresh)

    def _waiting(self, fresh: Fresh) -> Fresh:
        return fresh._replace(batch=self._place(fresh.batch, fresh.is_ours))

    def _restored(self) -> ShuffleBuffer[Use[Fresh]]:
        """The shuffle buffer; what it held when the stream was interrupted is read again.

        What can't be read again is left out, with its uses.
        """
        for position in self._state.positions_held[len(self._held) :]:
            fresh = self._fresh.again()
            self._held[position] = fresh and self._waiting(fresh)
        return ShuffleBuffer(
            self._echo,
            self._shuffle_buffer,
            seed=self._state.seed,
            num_drawn=self._state.num_drawn,
            held=tuple(
                Use(fresh, use.is_only)
                for use in self._state.held
                if (fresh := self._held[use.item.position]) is not None
            ),
        )

    def _state_behind(self, uses: ShuffleBuffer[Use[Fresh]]) -> State:
        position = self._fresh.position or self._state.position
        if self._echo.num_uses == 0:
            position = position.next
        return replace(
            self._state,
            position=position,
            num_uses=self._echo.num_uses,
            credit=self._echo.credit,
            num_drawn=uses.num_drawn,
            held=uses.held,
            num_steps=self._state.num_steps + 1,
            num_fresh=self._echo.num_fresh,
        )
