"""Batch echoing: whole batches are repeated and shuffled."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from keras_echo.echoing.repetition import NUM_KEPT, Echo, Gap, ShuffleBuffer, Use
from keras_echo.echoing.state import EchoState, State, check, count, entries, flag, position_of
from keras_echo.memory.batch import num_bytes_of
from keras_echo.memory.placement import AUTO_BYTES, NUM_PEEKED

if TYPE_CHECKING:
    from keras_echo.memory.batch import Batch, Waiting
    from keras_echo.memory.placement import BatchPlacement
    from keras_echo.reading.fresh_batches import FreshBatches
    from keras_echo.reading.stream import Fresh, Position

AUTO_BATCHES = 8
"""Batches all of whose uses have room in the shuffle buffer, with "auto"."""

_MOST_HELD = 1024
"""Batches in a shuffle buffer of any size, as far as a state is believed: all are read again."""

_NUM_ELSEWHERE = NUM_KEPT + NUM_PEEKED + 1
"""Batches that may wait outside of the shuffle buffer; one of them is the next to come there."""


class Held(NamedTuple):
    """A fresh batch that waits for its uses.

    Attributes:
        position: Its place in the stream.
        waiting: The batch; None in a state, from which it is read again.
        num_bytes: What it takes.
    """

    position: Position
    waiting: Waiting | None = None
    num_bytes: int = 0


@dataclass(frozen=True)
class BatchEchoState:
    """Where batch echoing stands.

    Attributes:
        num_uses: How often the batch at the stream's position was used.
        credit: Fraction of a use that the batches before it still owe.
        num_drawn: Draws of the shuffle buffer.
        held: What the shuffle buffer holds.
    """

    num_uses: int = 0
    credit: float = 0.0
    num_drawn: int = 0
    held: tuple[Use[Held], ...] = ()

    @property
    def positions_held(self) -> tuple[Position, ...]:
        """See `EchoState`."""
        return tuple(sorted({use.item.position for use in self.held}))

    def without_batches(self) -> BatchEchoState:
        """See `EchoState`."""
        return replace(
            self,
            held=tuple(use._replace(item=Held(use.item.position)) for use in self.held),
        )

    def as_json(self) -> dict[str, Any]:
        """See `EchoState`."""
        return {
            "kind": BatchEchoing.kind,
            "num_uses": self.num_uses,
            "credit": self.credit,
            "num_drawn": self.num_drawn,
            "held": [[*use.item.position, use.is_only, use.number] for use in self.held],
        }


@dataclass(frozen=True)
class BatchEchoing:
    """The settings of batch echoing.

    Attributes:
        placement: Where batches wait for their reuse.
        shuffle_buffer: Uses in the shuffle buffer after the echo; 0 keeps the order. "auto":
            those of `AUTO_BATCHES` batches, in `AUTO_BYTES` at most, while the factor is above 1.
    """

    placement: BatchPlacement
    shuffle_buffer: int | Literal["auto"]

    kind: ClassVar[str] = "batch"
    makes_batches: ClassVar[bool] = False

    def start(
        self, fresh: FreshBatches, state: State, factor: Callable[[], float], gap: Gap
    ) -> BatchEcho:
        """Begins to echo at a state; see `BatchEcho`."""
        return BatchEcho(fresh, state, factor, gap, self)

    def num_fresh(self, echo: EchoState | None, num_steps: int, factor: float) -> int:
        """About how many fresh batches the next steps use, and take into the shuffle buffer."""
        num_held = len(echo.held) if isinstance(echo, BatchEchoState) else 0
        room = max(0, self.capacity(factor) - 1 - num_held)
        return math.ceil((num_steps + min(num_steps, room)) / factor)

    def capacity(self, factor: float) -> int:
        """How many uses there is room for in the shuffle buffer, whatever their bytes."""
        if self.shuffle_buffer != "auto":
            return self.shuffle_buffer
        return math.ceil(min(AUTO_BATCHES * factor, sys.maxsize)) if factor > 1 else 0

    def state_from_json(self, state: dict[str, Any]) -> EchoState:
        """The reverse of `BatchEchoState.as_json`.

        Raises:
            ValueError: If `state` doesn't come from there. Others than that mean the same.
        """
        credit = state["credit"]
        check(isinstance(credit, (int, float)) and 0 <= credit < 1, "credit")
        loaded = BatchEchoState(
            num_uses=count(state["num_uses"]),
            credit=float(credit),
            num_drawn=count(state["num_drawn"]),
            held=tuple(
                Use(Held(position_of(of_pass, ordinal)), flag(is_only), count(number))
                for of_pass, ordinal, is_only, number in entries(state["held"])
            ),
        )
        most = _MOST_HELD if self.shuffle_buffer == "auto" else self.shuffle_buffer
        check(len(loaded.positions_held) <= max(_MOST_HELD, most), "held")
        check(loaded.num_uses <= loaded.num_drawn + len(loaded.held), "num_uses")
        return loaded


class BatchEcho(Iterator[tuple[Use["Waiting"], "Position", State]]):
    """The uses of whole batches, each with the batch's place and the state of the stream after it.

    Args:
        fresh: Yields once more what `state` holds, in the order of `state.positions_held`, and the
            fresh batches after that, from `state.position` on.
        state: Where to begin.
        factor: Returns the echoing factor.
        gap: Tells of gaps in the fresh batches.
        settings: Where batches wait, and how many are shuffled.
    """

    def __init__(
        self,
        fresh: FreshBatches,
        state: State,
        factor: Callable[[], float],
        gap: Gap,
        settings: BatchEchoing,
    ) -> None:
        self._fresh = fresh
        self._state = state
        self._factor = factor
        self._gap = gap
        self._num_extra_before = state.num_extra
        self._settings = settings
        self._place = settings.placement.begin()
        self._read_again: dict[Position, Held | None] = {}
        self._taken: deque[Position] = deque(maxlen=1)  # the batch that was last taken into use
        self._stages: tuple[Echo[Held], ShuffleBuffer[Use[Held]]] | None = None

    def __next__(self) -> tuple[Use[Waiting], Position, State]:
        if self._stages is None:
            self._stages = self._begun()
        echo, uses = self._stages
        use = next(uses)
        self._state = self._state_after(echo, uses)
        position, waiting, _ = use.item
        assert waiting is not None
        return Use(waiting, use.is_only, use.number), position, self._state

    def _begun(self) -> tuple[Echo[Held], ShuffleBuffer[Use[Held]]]:
        """The stages; what the shuffle buffer held when the stream was interrupted is read again.

        What can't be read again is left out, with its uses.
        """
        state = self._state
        before = state.echo if isinstance(state.echo, BatchEchoState) else BatchEchoState()
        for position in before.positions_held[len(self._read_again) :]:
            fresh = self._fresh.again()
            self._read_again[position] = fresh and _held(self._place, fresh)
        first = self._read_again.get(state.position) or next(self._fresh)
        place, taken = self._place, self._taken  # not self: the stages would refer to each other

        def into_use(fresh: Fresh | Held) -> Held:
            taken.append(fresh.position)
            return fresh if isinstance(fresh, Held) else _held(place, fresh)

        echo = Echo(
            # Not a generator, which an exception would end.
            map(into_use, chain((first,), self._fresh)),
            self._factor,
            self._gap,
            credit=before.credit,
            num_uses=before.num_uses if first.position == state.position else 0,
            num_fresh=state.num_fresh,
        )
        uses = ShuffleBuffer(
            echo,
            partial(_has_room, self._settings, self._factor),
            seed=state.seed,
            num_drawn=before.num_drawn,
            held=tuple(
                use._replace(item=held)
                for use in before.held
                if (held := self._read_again[use.item.position]) is not None
            ),
        )
        return echo, uses

    def _state_after(self, echo: Echo[Held], uses: ShuffleBuffer[Use[Held]]) -> State:
        position = self._state.position
        if self._taken:  # before, all uses come from what the shuffle buffer held
            (position,) = self._taken
            if echo.num_uses == 0:
                position = position.next
        return State(
            seed=self._state.seed,
            position=position,
            num_steps=self._state.num_steps + 1,
            num_fresh=echo.num_fresh,
            num_extra=self._num_extra_before + echo.num_extra,
            echo=BatchEchoState(echo.num_uses, echo.credit, uses.num_drawn, uses.held),
        )


def _held(place: Callable[[Batch, bool], Waiting], fresh: Fresh) -> Held:
    batch = place(fresh.batch, fresh.is_ours)
    return Held(fresh.position, batch, num_bytes_of(fresh.batch))


def _has_room(
    settings: BatchEchoing, factor: Callable[[], float], uses: Sequence[Use[Held]]
) -> bool:
    """Whether the shuffle buffer may hold one more use; see `BatchEchoing`."""
    if len(uses) >= settings.capacity(factor()):
        return False
    if settings.shuffle_buffer != "auto":
        return True
    num_bytes = {use.item.position: use.item.num_bytes for use in uses}  # copies share a batch
    elsewhere = _NUM_ELSEWHERE * max(num_bytes.values(), default=0)
    return sum(num_bytes.values()) + elsewhere <= AUTO_BYTES
