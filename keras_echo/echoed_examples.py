"""Example echoing on real batches: examples are taken out of fresh batches and mixed into new ones.

The buffer's examples lie in preallocated arrays, each once, however often it is used. So its memory
is fixed, an example is copied in once and out once for each use, and no batch that is served shares
memory with another.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from keras_echo._messages import expected
from keras_echo.echoing import Use
from keras_echo.examples import Block, ExampleEcho, Held
from keras_echo.placement import HostBatch
from keras_echo.state import ExampleState, State
from keras_echo.storage import Examples, Storage

if TYPE_CHECKING:
    from keras_echo.fresh import FreshBatches
    from keras_echo.storage import Memory
    from keras_echo.stream import Fresh

_DEFAULT_BATCHES = 8
_BATCHES_TO_LEARN_THE_SIZE = 2  # at most one of them is the last one of a pass


class _Read(NamedTuple):
    """A fresh batch of which some examples aren't in the buffer yet."""

    block: Block
    examples: Examples


class EchoedExamples(Iterator[tuple[Use[HostBatch], State]]):
    """Batches of echoed examples, each with the state of the stream behind it.

    All batches are of one size: that of the larger one of the first two fresh batches, since the
    last batch of a pass may be shorter. Its examples, like all others, fill up the next batches.

    Args:
        fresh: Yields once more what `state` holds, in the order of `state.positions_held`, and the
            fresh batches from `state.position` on.
        state: Where to begin.
        factor: Returns the echoing factor.
        shuffle_buffer: Examples in the buffer, at least those of one batch; 0 means 8 batches.
        allocate: Makes the memory in which they lie, for one array of a batch.
    """

    def __init__(
        self,
        fresh: FreshBatches,
        state: State,
        factor: Callable[[], float],
        shuffle_buffer: int,
        allocate: Callable[[np.ndarray, int], Memory],
    ) -> None:
        self._fresh = fresh
        self._state = state
        self._factor = factor
        self._shuffle_buffer = shuffle_buffer
        self._allocate = allocate
        self._before = before = state.examples or ExampleState()
        self._batch_size = before.batch_size
        # A block that was used up is forgotten, though one before it may still be held.
        self._num_read = max([before.num_taken, *(block.end for block in before.blocks)])
        self._blocks: list[Block] = []  # what is in the buffer or still to come there
        self._reads: deque[_Read] = deque()  # what is still to come
        self._num_again = 0  # blocks that were read again, or left out
        self._echo: ExampleEcho | None = None

    def __next__(self) -> tuple[Use[HostBatch], State]:
        if self._echo is None:
            self._echo, self._storage = self._begun()
        self._echo.begin()
        while num_missing := self._echo.num_missing:
            self._take(self._echo, num_missing)
        batch = self._storage.gather(self._echo.draw(self._batch_size))
        self._state = self._state_behind(self._echo)
        return Use(HostBatch(batch, is_ours=True), is_only=True), self._state

    def _begun(self) -> tuple[ExampleEcho, Storage]:
        """The buffer; what it held when the stream was interrupted is read again."""
        before = self._before
        for block in before.blocks[self._num_again :]:
            if (fresh := self._fresh.again()) is not None:
                self._add(block, _as_before(block, fresh))
            self._num_again += 1
        while not before.batch_size and len(self._blocks) < _BATCHES_TO_LEARN_THE_SIZE:
            self._read()
        self._batch_size = before.batch_size or max(block.num for block in self._blocks)
        numbers, num_uses = before.held
        if before.blocks:  # what can't be read again is left out, with its uses
            is_there = np.isin(
                np.searchsorted([block.end for block in before.blocks], numbers, side="right"),
                [before.blocks.index(block) for block in self._blocks if block in before.blocks],
            )
            numbers, num_uses = numbers[is_there], num_uses[is_there]
        capacity = max(
            self._shuffle_buffer or _DEFAULT_BATCHES * self._batch_size,
            self._batch_size,
            len(numbers),
        )
        echo = ExampleEcho(
            self._factor,
            capacity,
            seed=self._state.seed,
            num_drawn=self._state.num_drawn,
            num_taken=before.num_taken,
            held=Held(numbers, num_uses),
        )
        if not self._reads:
            self._read()
        storage = Storage(self._reads[0].examples, capacity, self._allocate)
        for block, examples in self._reads:
            is_of_block = (block.first <= numbers) & (numbers < block.end)
            storage.put(echo.slots[is_of_block], examples, numbers[is_of_block] - block.first)
        while self._reads and self._reads[0].block.end <= before.num_taken:
            self._reads.popleft()
        return echo, storage

    def _take(self, echo: ExampleEcho, num_missing: int) -> None:
        """Takes up to `num_missing` examples, all from one fresh batch, into the buffer."""
        if not self._reads:
            self._read()
        block, examples = self._reads[0]
        echo.num_taken = max(echo.num_taken, block.first)  # the one before may be left out
        begin = echo.num_taken - block.first
        end = min(begin + num_missing, block.num)
        self._storage.put(echo.take(end - begin), examples, slice(begin, end))
        if end == block.num:
            self._reads.popleft()

    def _read(self) -> None:
        fresh = next(self._fresh)
        examples = Examples(fresh.batch)
        self._add(Block(fresh.position, self._num_read, examples.num), examples)
        self._num_read += examples.num

    def _add(self, block: Block, examples: Examples) -> None:
        self._blocks.append(block)
        self._reads.append(_Read(block, examples))

    def _state_behind(self, echo: ExampleEcho) -> State:
        held = echo.held
        bounds = np.searchsorted(held.numbers, [(block.first, block.end) for block in self._blocks])
        self._blocks = [
            block
            for block, (begin, end) in zip(self._blocks, bounds, strict=True)
            if begin < end or echo.num_taken < block.end
        ]
        last = self._fresh.position
        num_used = echo.num_taken - np.count_nonzero(held.num_uses == 0)
        return replace(
            self._state,
            position=last.next if last else self._state.position,
            num_drawn=echo.num_drawn,
            num_steps=self._state.num_steps + 1,
            num_fresh=math.ceil(num_used / self._batch_size),
            examples=ExampleState(self._batch_size, echo.num_taken, tuple(self._blocks), held),
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
