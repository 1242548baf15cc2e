"""The stages in a row: read ahead, echo, shuffle, augment.

A pipeline is disposable: whatever happens to it, another one that is built from the state after
the last batch goes on with the next.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from keras_echo.memory.batch import Batch, checked, copied
from keras_echo.memory.host import HostBatch
from keras_echo.reading.fingerprint import Fingerprinting
from keras_echo.reading.fresh_batches import FreshBatches
from keras_echo.reading.ownership import OwnMemory
from keras_echo.reading.prefetcher import Prefetcher
from keras_echo.reading.read_timeout import ReadTimeout
from keras_echo.reading.recognition import Recognition
from keras_echo.reading.stream import Fresh, Position
from keras_echo.serving.factors_ahead import FactorsAhead
from keras_echo.serving.interrupts import INTERRUPTS
from keras_echo.serving.reading_gap import ReadingGap

if TYPE_CHECKING:
    from keras_echo.echoing.repetition import Gap, Use
    from keras_echo.echoing.state import EchoState, State
    from keras_echo.factor import EchoFactor
    from keras_echo.memory.batch import Waiting
    from keras_echo.metering import Meter
    from keras_echo.reading.batch_form import BatchForm
    from keras_echo.reading.cache import CachedReads
    from keras_echo.reading.landmarks import Fingerprint
    from keras_echo.reading.on_error import Policy
    from keras_echo.reading.reader_count import ReaderCount
    from keras_echo.reading.source import Parallelism, Source
    from keras_echo.serving.augmentation import Augment

_MOST_FAILURES = 1000  # in a row, for a source that doesn't know how long its passes are
_SERVED_AHEAD = 2
_THREAD_IDLE_SECONDS = 2.0
_PROCESS_IDLE_SECONDS = 10.0  # a new one imports Keras, which takes seconds


class Echoing(Protocol):
    """A kind of echo, with its settings."""

    @property
    def kind(self) -> str:
        """Its name in a state."""

    @property
    def makes_batches(self) -> bool:
        """Whether it makes each batch anew, which is then done ahead of training."""

    def start(
        self, fresh: FreshBatches, state: State, factor: Callable[[], float], gap: Gap
    ) -> Iterator[tuple[Use[Any], Position | None, State]]:
        """Begins to repeat and to shuffle at a state.

        Args:
            fresh: What the state holds, once more, and the fresh batches after it.
            state: Where to begin.
            factor: Returns the factor of the use that is being made.
            gap: Tells of gaps in the fresh batches.

        Returns:
            The uses of fresh batches, each with the batch's place, or of their examples, with None;
            and the state after each.
        """

    def num_fresh(self, echo: EchoState | None, num_steps: int, factor: float) -> int:
        """About how many fresh batches so many steps take from where the echo stands."""

    def state_from_json(self, state: dict[str, Any]) -> EchoState:
        """Where the echo stands, from what its state's `as_json` returned."""


@dataclass(frozen=True)
class Settings:
    """What stays the same for all pipelines of a dataset.

    Attributes:
        source: What is read.
        parallelism: How it wants to be read.
        reader_count: How many readers there are now.
        factor: The echoing factor.
        echoing: What is repeated, and how.
        augment: Applied to every copy, with random numbers of its own, on any thread.
        on_error: What becomes of reads that fail.
        read_timeout: Seconds that the read of a batch may take; None for any time.
        form: What the batches of the source have in common.
        meter: Measures reads and waits.
        cache: Keeps fresh batches for later passes.
    """

    source: Source
    parallelism: Parallelism
    reader_count: ReaderCount
    factor: EchoFactor
    echoing: Echoing
    augment: Augment | None
    on_error: Policy
    read_timeout: float | None
    form: BatchForm
    meter: Meter
    cache: CachedReads | None = None


class Served(NamedTuple):
    """A batch for training.

    Attributes:
        waiting: The batch.
        is_only: Whether nobody else sees this very object.
        number: Which use of its fresh batch this is, from 1; 0 if that isn't known, or if it is
            made of examples, whose uses it mixes.
        position: The place of that fresh batch in the stream; None if it is made of examples.
        before: Where the stream stands before this batch.
        after: Where it stands after it.
        factor: The echoing factor with which this use was made.
        output: Refers to the upstream output that this is a use of, without keeping it alive.
    """

    waiting: Waiting
    is_only: bool
    number: int
    position: Position | None
    before: State
    after: State
    factor: float
    output: weakref.ref[Waiting]

    def hand_out(self, *, may_return: bool) -> Batch:
        """The batch for training, of which nobody sees any change in place.

        Args:
            may_return: Whether this use may be served again.
        """
        if not self.is_only:
            return self.waiting.use()
        return self.from_host(may_return=may_return)  # used once, it's not worth a transfer

    def from_host(self, *, may_return: bool) -> Batch:
        """The same, and never from the accelerator's memory."""
        is_free = self.is_only and not may_return
        return self.waiting.batch if is_free else copied(self.waiting.batch)

    def to_change(self) -> Batch:
        """The batch for the user's code, which may change it in place: our memory, always."""
        is_free = self.is_only and self.waiting.is_ours
        return self.waiting.batch if is_free else self.waiting.use()


class Pipeline(Iterator[Served]):
    """All stages of a dataset, from `state` on, without an end.

    Attributes:
        factors: Those of the uses that were made; whoever takes one may have its own forgotten.
        gap: Tells of gaps in reading.
    """

    def __init__(self, settings: Settings, state: State) -> None:
        self._meter = settings.meter
        self.factors = FactorsAhead(settings.factor, state.num_steps, state.factors_ahead)
        self._echoed = _Echoed(settings, replace(state, factors_ahead=()), self.factors)
        self._ahead: Prefetcher[Served] | None = None
        if settings.augment is not None:
            self._ahead = Prefetcher(
                _augmenter(settings.augment, state.seed),
                self._echoed,
                num_workers=settings.parallelism.workers,
                window_size=_SERVED_AHEAD,
                is_interrupted=INTERRUPTS.heard,
            )
        elif settings.echoing.makes_batches:
            self._ahead = Prefetcher(
                lambda served: served,
                self._echoed,
                num_workers=1,
                window_size=_SERVED_AHEAD,
                is_interrupted=INTERRUPTS.heard,
            )

        self.gap = self._echoed.gap
        self._num_got = 0
        self._augment = settings.augment
        self._seed = state.seed

    def __next__(self) -> Served:
        self.gap.num_wanted = self._num_got + 1
        with self._meter.waiting():
            served = next(self._ahead or self._echoed)
        self._num_got += 1
        return served

    def fill(self, num_batches: int, timeout_seconds: float) -> bool:
        """Waits until fresh batches lie ready: `num_batches`, or as many as are read ahead."""
        return self._echoed.fill(num_batches, timeout_seconds)

    def upcoming(self) -> dict[Position, Callable[[], Batch]]:
        """The fresh batches that lie ready and are in no other stage, in order.

        Returns:
            By its position, what makes a copy of a batch as training would get it.
        """
        return {fresh.position: partial(self._copied, fresh) for fresh in self._echoed.ready()}

    def _copied(self, fresh: Fresh) -> Batch:
        batch = copied(fresh.batch)
        if self._augment is None:
            return batch
        # Numbers that no copy for training gets: the key is longer.
        draws = np.random.SeedSequence(self._seed, spawn_key=(*fresh.position, 0))
        return self._augment(batch, np.random.default_rng(draws))

    def stop(self, *, wait: bool = True) -> None:
        """Ends all threads and processes; the next call starts them again."""
        # Upstream first: the threads ahead may be waiting for it.
        self._echoed.stop(wait=False)
        if self._ahead is not None:
            self._ahead.stop(wait=wait)
        if wait:
            self._echoed.stop(wait=True)


class _Echoed(Iterator[Served]):
    """Read ahead, echo, shuffle: everything but the augmentation."""

    def __init__(self, settings: Settings, state: State, factors: FactorsAhead) -> None:
        source, parallelism = settings.source, settings.parallelism
        seconds = settings.read_timeout
        self._state = state
        # What comes out of a process is a copy by itself.
        is_lent = source.lends and not parallelism.use_multiprocessing
        sought = _sought(state, source)
        unneeded = (sought.position,) if sought and sought.position < state.needed[0] else ()
        first = (*unneeded, *state.positions_held)
        self._upstream = Prefetcher[Fresh](
            OwnMemory(source.read) if is_lent else source.read,
            source.reads(state.next_position, first, state.seed, state.landmarks.bookmarks),
            num_workers=settings.reader_count,
            window_size=parallelism.max_queue_size,
            use_processes=parallelism.use_multiprocessing,
            idle_seconds=(
                _PROCESS_IDLE_SECONDS if parallelism.use_multiprocessing else _THREAD_IDLE_SECONDS
            ),
            watch=settings.meter,
            through=Fingerprinting(settings.cache),
            again=settings.on_error.again,
            # Otherwise it is a stage ahead of training that waits here, and another one there.
            is_interrupted=(lambda: False) if _is_ahead(settings) else INTERRUPTS.heard,
            limit=None if seconds is None else ReadTimeout(source, seconds),
        )
        self._form = settings.form
        self._recognition = Recognition(self._upstream, state.landmarks, sought)
        self._fresh = FreshBatches(
            self._recognition,
            source,
            state.seed,
            form=settings.form,
            skip=settings.on_error.skip,
            most_failures=source.length or _MOST_FAILURES,
            num_fresh=state.num_fresh,
            skipped=state.skipped,
            meter=settings.meter,
            num_unneeded=len(unneeded),
        )
        self._factors = factors
        self.gap = ReadingGap(settings.factor, self._upstream, settings.meter)
        self._uses = settings.echoing.start(self._fresh, state, factors.acting, self.gap)

    def __next__(self) -> Served:
        before = self._state
        self._factors.settle(before.num_steps)
        use, position, after = next(self._uses)
        self._state = replace(
            after,
            skipped=self._fresh.skipped_before(after.position),
            landmarks=self._recognition.landmarks(after.needed),
        )
        self.gap.num_made += 1
        return Served(
            use.item,
            use.is_only,
            use.number,
            position,
            before,
            self._state,
            self._factors.acting(),
            weakref.ref(use.item),
        )

    def ready(self) -> list[Fresh]:
        # Those of another form raise, or are skipped, when their turn comes.
        return [fresh for fresh in self._upstream.ready() if self._form.fits(fresh.batch)]

    def fill(self, num_batches: int, timeout_seconds: float) -> bool:
        return self._upstream.fill(num_batches, timeout_seconds)

    def stop(self, *, wait: bool) -> None:
        self._upstream.stop(wait=wait)


def _is_ahead(settings: Settings) -> bool:
    """Whether there is a stage after the echo that works ahead of training."""
    return settings.augment is not None or settings.echoing.makes_batches


def _sought(state: State, source: Source) -> Fingerprint | None:
    """What a batch is to be that tells whether the source gives the batches that it gave before."""
    fingerprint = state.landmarks.fingerprint
    if fingerprint is None or not fingerprint.is_loaded:
        return None
    return fingerprint if source.can_go_back_to(fingerprint.position) else None


def _augmenter(augment: Augment, seed: int) -> Callable[[Served], Served]:
    def augmented(served: Served) -> Served:
        # By the number of the copy: the same for any number of workers, and after a restart.
        draws = np.random.SeedSequence(seed, spawn_key=(served.before.num_steps,))
        batch = checked(
            augment(served.to_change(), np.random.default_rng(draws)),
            "What augment returns",
            "Return the whole batch from augment, even where it is changed in place",
        )
        return served._replace(waiting=HostBatch(batch, is_ours=True), is_only=True)

    return augmented
