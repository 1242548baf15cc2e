"""Example echoing: examples are taken out of fresh batches and mixed into new ones.

The buffer's examples lie in preallocated arrays, each once, however often it is used. So its memory
is fixed, an example is copied in once and out once for each use, and no batch that is served shares
memory with another.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from keras_echo._messages import expected
from keras_echo.echoing.example_buffer import NOTHING_HELD, Block, ExampleBuffer, Held
from keras_echo.echoing.repetition import Gap, Use
from keras_echo.echoing.state import EchoState, State, check, count, counts, entries, position_of
from keras_echo.memory.example_storage import Examples, Storage
from keras_echo.memory.host import HostBatch

if TYPE_CHECKING:
    from keras_echo.memory.placement import ExamplePlacement
    from keras_echo.reading.fresh_batches import FreshBatches
    from keras_echo.reading.stream import Fresh, Position

_DEFAULT_BATCHES = 8
_MOST_AHEAD = 8  # batches that are there before the buffer has room for them; two, in fact
_MOST_TIMES = 64  # so much larger than a batch of the source, a state's batches are another's


@dataclass(frozen=True, eq=False)
class ExampleEchoState:
    """Where example echoing stands.

    Attributes:
        batch_size: Examples in each batch that is drawn from the buffer; before the first draw, in
            the largest fresh batch so far, or 0.
        num_drawn: Batches that were drawn from the buffer.
        num_taken: Examples that were taken into the buffer.
        blocks: The fresh batches of which examples are in the buffer or still to come there.
        held: What the buffer holds.
    """

    batch_size: int = 0
    num_drawn: int = 0
    num_taken: int = 0
    blocks: tuple[Block, ...] = ()
    held: Held = NOTHING_HELD

    @property
    def positions_held(self) -> tuple[Position, ...]:
        """See `EchoState`."""
        return tuple(sorted({block.position for block in self.blocks}))

    @property
    def num_batches_used(self) -> int:
        """The examples that were used so far, in batches."""
        num_used = self.num_taken - np.count_nonzero(self.held.num_uses == 0)
        return math.ceil(num_used / self.batch_size)

    def without_batches(self) -> ExampleEchoState:
        """See `EchoState`."""
        return self

    def as_json(self) -> dict[str, Any]:
        """See `EchoState`; the ascending numbers are told as steps, which are short."""
        return {
            "kind": ExampleEchoing.kind,
            "batch_size": self.batch_size,
            "num_drawn": self.num_drawn,
            "num_taken": self.num_taken,
            "blocks": [[*block.position, block.first, block.num] for block in self.blocks],
            "steps": np.diff(self.held.numbers, prepend=0).tolist(),
            "num_uses": self.held.num_uses.tolist(),
        }


@dataclass(frozen=True)
class ExampleEchoing:
    """The settings of example echoing.

    Attributes:
        placement: Where examples wait for their reuse.
        shuffle_buffer: Examples in the buffer, at least those of one batch; 0 means 8 batches.
            "auto": as many, while the factor is above 1.
    """

    placement: ExamplePlacement
    shuffle_buffer: int | Literal["auto"]

    kind: ClassVar[str] = "example"
    makes_batches: ClassVar[bool] = True

    def start(
        self, fresh: FreshBatches, state: State, factor: Callable[[], float], gap: Gap
    ) -> ExampleEcho:
        """Begins to echo at a state; see `ExampleEcho`."""
        return ExampleEcho(fresh, state, factor, gap, self)

    def num_fresh(self, echo: EchoState | None, num_steps: int, factor: float) -> int:
        """About how many fresh batches the next steps use, and take into the buffer."""
        if not isinstance(echo, ExampleEchoState) or echo.batch_size == 0:
            return num_steps
        if self.shuffle_buffer == "auto" and factor == 1:
            return num_steps
        room = (self.capacity(echo.batch_size) - len(echo.held.numbers)) / echo.batch_size
        return math.ceil(min(num_steps * (1 if factor > 1 else 2), room + num_steps / factor))

    def capacity(self, batch_size: int) -> int:
        """How many examples there is room for in the buffer."""
        wanted = 0 if self.shuffle_buffer == "auto" else self.shuffle_buffer
        return max(wanted or _DEFAULT_BATCHES * batch_size, batch_size)

    def state_from_json(self, state: dict[str, Any]) -> EchoState:
        """The reverse of `ExampleEchoState.as_json`.

        Raises:
            ValueError: If `state` doesn't come from there. Others than that mean the same.
        """
        numbers = np.cumsum(counts(state["steps"]))
        num_uses = counts(state["num_uses"])
        blocks = tuple(
            Block(position_of(number, ordinal), count(first), count(num))
            for number, ordinal, first, num in entries(state["blocks"])
        )
        batch_size, num_taken = count(state["batch_size"]), count(state["num_taken"])
        num_drawn = count(state["num_drawn"])
        check(batch_size <= num_taken, "batch_size")
        check(batch_size > 0 or not (blocks or num_drawn), "batch_size")
        check(all(a.end <= b.first for a, b in pairwise(blocks)), "blocks")
        check(all(a.position < b.position for a, b in pairwise(blocks)), "blocks")
        check(len(numbers) == len(num_uses), "num_uses")
        check(bool((np.diff(numbers) > 0).all()), "steps")
        check(not len(numbers) or int(numbers[-1]) < num_taken, "num_taken")
        firsts, ends = np.array([(b.first, b.end) for b in blocks], np.int64).reshape(-1, 2).T
        of_block = np.searchsorted(ends, numbers, side="right")
        check(bool((of_block < len(blocks)).all()), "blocks")
        check(bool((firsts[of_block] <= numbers).all()), "blocks")
        is_used = np.isin(np.arange(len(blocks)), of_block) | (ends > num_taken)
        check(bool(is_used.all()), "blocks")  # each is read again
        check(sum(block.first >= num_taken for block in blocks) <= _MOST_AHEAD, "blocks")
        held = Held(numbers, num_uses)
        return ExampleEchoState(batch_size, num_drawn, num_taken, blocks, held)


class _Read(NamedTuple):
    """A fresh batch of which some examples aren't in the buffer yet."""

    block: Block
    examples: Examples
    fresh: Fresh


class ExampleEcho(Iterator[tuple[Use[HostBatch], None, State]]):
    """Batches of echoed examples, each with the state of the stream after it.

    All batches are of one size: that of the larger one of the first two fresh batches, since the
    last batch of a pass may be shorter. Its examples, like all others, fill up the next batches.

    With `shuffle_buffer="auto"`, nothing new is taken in at factor 1: what is held is served, and
    the rest of the fresh batch that was begun, at last in a shorter batch. From then on, each fresh
    batch is passed on as it is, and the largest of those also counts for the size.

    Args:
        fresh: Yields once more what `state` holds, in the order of `state.positions_held`, and the
            fresh batches from `state.position` on.
        state: Where to begin.
        factor: Returns the echoing factor.
        gap: Tells of gaps in the fresh batches. In one, batches are drawn from what the buffer
            holds, of examples that were used less than `gap.max_uses` times.
        settings: Where examples wait, and how many are held.
    """

    def __init__(
        self,
        fresh: FreshBatches,
        state: State,
        factor: Callable[[], float],
        gap: Gap,
        settings: ExampleEchoing,
    ) -> None:
        self._fresh = fresh
        self._state = state
        self._factor = factor
        self._gap = gap
        self._is_in_gap = False
        self._settings = settings
        self._echo = state.echo if isinstance(state.echo, ExampleEchoState) else ExampleEchoState()
        # A block that was used up is forgotten, though one before it may still be held.
        self._num_read = max(self._echo.num_taken, *(block.end for block in self._echo.blocks), 0)
        self._blocks: list[Block] = []  # what is in the buffer or still to come there
        self._reads: deque[_Read] = deque()  # what is still to come
        self._num_again = 0  # blocks that were read again, or left out
        self._stages: tuple[ExampleBuffer, Storage] | None = None

    def __next__(self) -> tuple[Use[HostBatch], None, State]:
        if self._stages is None and (self._echo.blocks or not self._is_off()):
            self._stages = self._begun()
        if self._stages is not None:
            buffer, storage = self._stages
            # While a gap lasts, what it gave more uses must not be dropped.
            if not (self._is_in_gap and self._is_bridging(buffer)):
                self._fill(buffer, storage)
            if len(buffer.held.numbers):
                return self._drawn(buffer, storage)
        return self._passed_on()

    def _is_off(self) -> bool:
        """Whether nothing new is to be held."""
        return self._settings.shuffle_buffer == "auto" and self._factor() == 1

    def _passed_on(self) -> tuple[Use[HostBatch], None, State]:
        """Uses the next fresh batch as it is, where nothing is held."""
        if not self._reads:
            self._read()
        block, _, fresh = self._reads.popleft()
        self._stages = None
        self._blocks = [read.block for read in self._reads]
        self._num_again = len(self._blocks)
        batch_size = max(self._echo.batch_size, block.num)
        echo = ExampleEchoState(
            batch_size, self._echo.num_drawn, block.end, tuple(self._blocks), NOTHING_HELD
        )
        batch = HostBatch(fresh.batch, fresh.is_ours)
        return Use(batch, is_only=True, number=0), None, self._moved_on(echo, num_fresh=1)

    def _drawn(self, buffer: ExampleBuffer, storage: Storage) -> tuple[Use[HostBatch], None, State]:
        """Uses a batch that is drawn from the buffer."""
        batch = HostBatch(storage.gather(buffer.draw()), is_ours=True)
        before = replace(self._echo, batch_size=buffer.batch_size)
        echo = self._echo_after(buffer)
        num_fresh = echo.num_batches_used - before.num_batches_used
        return Use(batch, is_only=True, number=0), None, self._moved_on(echo, num_fresh)

    def _fill(self, buffer: ExampleBuffer, storage: Storage) -> None:
        buffer.begin()
        while num_missing := self._num_missing(buffer):
            if self._is_bridging(buffer):
                return
            self._take(buffer, storage, num_missing)

    def _num_missing(self, buffer: ExampleBuffer) -> int:
        """How many examples are to be taken in before the next draw."""
        if not self._is_off():
            return buffer.num_missing
        is_begun = self._reads and self._reads[0].block.first < buffer.num_taken
        num_left = self._reads[0].block.end - buffer.num_taken if is_begun else 0
        return min(num_left, max(0, buffer.batch_size - len(buffer.held.numbers)))

    def _is_bridging(self, buffer: ExampleBuffer) -> bool:
        """Whether to draw from a buffer that isn't full, since nothing is there to fill it."""
        most = self._gap.max_uses
        self._is_in_gap = most is not None and not self._reads and self._gap.is_open()
        if most is not None and self._is_in_gap:
            buffer.begin(at_least=most)
            self._is_in_gap = len(buffer.held.numbers) >= buffer.batch_size
            if not self._is_in_gap:
                buffer.begin()
        return self._is_in_gap

    def _begun(self) -> tuple[ExampleBuffer, Storage]:
        """The buffer; what it held when the stream was interrupted is read again."""
        before = self._echo
        for block in before.blocks[self._num_again :]:
            if (fresh := self._fresh.again()) is not None:
                self._add(block, _as_before(block, fresh), fresh)
            self._num_again += 1
        for _ in range(2):  # at most one of the first two is the last one of a pass
            is_known = before.batch_size == 0 and len(self._reads) > 1
            if not (is_known or self._is_of_source(before.batch_size)):
                self._read()
        if before.batch_size and not self._is_of_source(before.batch_size):
            raise ValueError(_not_of_source(before.batch_size, self._reads))
        batch_size = before.batch_size
        if before.num_drawn == 0:
            batch_size = max(batch_size, *(read.block.num for read in self._reads))
        numbers, num_uses = before.held
        if before.blocks:  # what can't be read again is left out, with its uses
            is_there = np.isin(
                np.searchsorted([block.end for block in before.blocks], numbers, side="right"),
                [before.blocks.index(block) for block in self._blocks if block in before.blocks],
            )
            numbers, num_uses = numbers[is_there], num_uses[is_there]
        capacity = max(self._settings.capacity(batch_size), len(numbers))
        buffer = ExampleBuffer(
            self._factor,
            batch_size,
            capacity,
            seed=self._state.seed,
            num_drawn=before.num_drawn,
            num_taken=before.num_taken,
            held=Held(numbers, num_uses),
        )
        storage = Storage(self._reads[0].examples, capacity, self._settings.placement.allocate)
        for block, examples, _ in self._reads:
            is_of_block = (block.first <= numbers) & (numbers < block.end)
            storage.put(buffer.slots[is_of_block], examples, numbers[is_of_block] - block.first)
        while self._reads and self._reads[0].block.end <= before.num_taken:
            self._reads.popleft()
        return buffer, storage

    def _is_of_source(self, batch_size: int) -> bool:
        """Whether batches of that size may come from batches as they were read now."""
        return any(0 < batch_size <= _MOST_TIMES * read.block.num for read in self._reads)

    def _take(self, buffer: ExampleBuffer, storage: Storage, num_missing: int) -> None:
        """Takes up to `num_missing` examples, all from one fresh batch, into the buffer."""
        if not self._reads:
            self._read()
        block, examples, _ = self._reads[0]
        buffer.num_taken = max(buffer.num_taken, block.first)  # the one before may be left out
        begin = buffer.num_taken - block.first
        end = min(begin + num_missing, block.num)
        storage.put(buffer.take(end - begin), examples, slice(begin, end))
        if end == block.num:
            self._reads.popleft()

    def _read(self) -> None:
        fresh = next(self._fresh)
        examples = Examples(fresh.batch)
        self._add(Block(fresh.position, self._num_read, examples.num), examples, fresh)
        self._num_read += examples.num

    def _add(self, block: Block, examples: Examples, fresh: Fresh) -> None:
        self._blocks.append(block)
        self._reads.append(_Read(block, examples, fresh))

    def _echo_after(self, buffer: ExampleBuffer) -> ExampleEchoState:
        held = buffer.held
        bounds = np.searchsorted(held.numbers, [(block.first, block.end) for block in self._blocks])
        self._blocks = [
            block
            for block, (begin, end) in zip(self._blocks, bounds, strict=True)
            if begin < end or buffer.num_taken < block.end
        ]
        return ExampleEchoState(
            buffer.batch_size, buffer.num_drawn, buffer.num_taken, tuple(self._blocks), held
        )

    def _moved_on(self, echo: ExampleEchoState, num_fresh: int) -> State:
        last = self._fresh.position
        self._echo = echo
        self._state = State(
            seed=self._state.seed,
            position=last.next if last else self._state.position,
            num_steps=self._state.num_steps + 1,
            num_fresh=self._state.num_fresh + num_fresh,
            num_extra=self._state.num_extra + self._is_in_gap,
            echo=echo,
        )
        return self._state


def _not_of_source(batch_size: int, reads: Iterable[_Read]) -> str:
    return expected(
        "The batch size of a state",
        f"be that of this source, whose batches have {[read.block.num for read in reads]} examples",
        batch_size,
        "Build the dataset from the same source with the same arguments",
    )


def _as_before(block: Block, fresh: Fresh) -> Examples:
    """What a block holds, read again."""
    examples = Examples(fresh.batch)
    if examples.num != block.num:
        raise ValueError(
            expected(
                "A batch that is read again to go on from a state",
                f"have {block.num} examples, as before",
                examples.num,
                "Build the dataset from the same source with the same arguments",
            )
        )
    return examples
