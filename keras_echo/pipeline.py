"""The stages in a row: read ahead, echo, shuffle, augment.

A pipeline is disposable: whatever happens to it, another one that is built from the state behind
the last batch goes on with the next.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from keras_echo.batches import Batch, checked, copied
from keras_echo.echoing import Echo, ShuffleBuffer, Use
from keras_echo.placement import HostBatch, Waiting
from keras_echo.prefetch import Prefetcher, StoppedError
from keras_echo.state import State
from keras_echo.stream import EmptyPassError, Fresh, Position

if TYPE_CHECKING:
    from keras_echo.meter import Meter
    from keras_echo.sources import Parallelism, Source

_MOST_FAILURES = 1000  # in a row, for a source that doesn't know how long its passes are
_AUGMENTED_AHEAD = 2
_THREAD_IDLE_SECONDS = 2.0
_PROCESS_IDLE_SECONDS = 10.0  # a new one imports Keras, which takes seconds


@dataclass(frozen=True)
class Settings:
    """What stays the same for all pipelines of a dataset.

    Attributes:
        source: What is read.
        parallelism: How it is read.
        factor: Returns the echoing factor.
        shuffle_buffer: Batches in the shuffle buffer behind the echo.
        place: Returns a batch that waits where it is to wait for its reuse.
        augment: Applied to every copy, in order, on one thread.
        on_error: Whether a failing read raises or is skipped.
        meter: Measures reads and waits.
    """

    source: Source
    parallelism: Parallelism
    factor: Callable[[], float]
    shuffle_buffer: int
    place: Callable[[Batch], Waiting]
    augment: Callable[[Batch], Batch] | None
    on_error: Literal["raise", "skip"]
    meter: Meter


class Served(NamedTuple):
    """A batch for training.

    Attributes:
        waiting: The batch.
        is_only: Whether nobody else sees this very object.
        before: Where the stream stands before this batch.
        behind: Where it stands behind it.
    """

    waiting: Waiting
    is_only: bool
    before: State
    behind: State

    def own(self) -> Batch:
        """The batch, copied if somebody else sees it too."""
        return self.waiting.batch if self.is_only else self.waiting.copy()

    def copy(self) -> Batch:
        """The batch, copied. If this is its only use, it is not worth a transfer."""
        return copied(self.waiting.batch) if self.is_only else self.waiting.copy()


class Pipeline(Iterator[Served]):
    """All stages of a dataset, from `state` on, without an end."""

    def __init__(self, settings: Settings, state: State) -> None:
        self._meter = settings.meter
        self._echoed = _Echoed(settings, state)
        self._augmented: Prefetcher[Served] | None = None
        if settings.augment is not None:
            self._augmented = Prefetcher(
                _augmenter(settings.augment),
                self._echoed,
                num_workers=1,
                window_size=_AUGMENTED_AHEAD,
            )

    def __next__(self) -> Served:
        with self._meter.waiting():
            return next(self._augmented or self._echoed)

    def stop(self, *, wait: bool = True) -> None:
        """Ends all threads and processes; the next call starts them again."""
        # Upstream first: the augmenting thread may be waiting for it.
        self._echoed.stop(wait=False)
        if self._augmented is not None:
            self._augmented.stop(wait=wait)
        self._echoed.stop(wait=wait)


class _Echoed(Iterator[Served]):
    """Read ahead, echo, shuffle: everything but the augmentation."""

    def __init__(self, settings: Settings, state: State) -> None:
        source, parallelism = settings.source, settings.parallelism
        self._settings = settings
        self._state = state
        self._positions_held = sorted({use.item.position for use in state.held})
        self._held: dict[Position, Fresh] = {}
        self._upstream = Prefetcher[Fresh](
            source.read,
            source.reads(state.position, tuple(self._positions_held), state.seed),
            num_workers=parallelism.workers,
            window_size=parallelism.max_queue_size,
            use_processes=parallelism.use_multiprocessing,
            idle_seconds=(
                _PROCESS_IDLE_SECONDS if parallelism.use_multiprocessing else _THREAD_IDLE_SECONDS
            ),
            measure=settings.meter.reading,
        )
        self._fresh = _FreshBatches(
            self._upstream,
            most_failures=1 if settings.on_error == "raise" else source.length or _MOST_FAILURES,
            meter=settings.meter,
        )
        self._echo = Echo(
            map(self._placed, self._fresh),
            settings.factor,
            credit=state.credit,
            num_uses=state.num_uses,
            num_fresh=state.num_fresh,
        )
        self._uses: ShuffleBuffer[Use[Fresh]] | None = None

    def __next__(self) -> Served:
        if self._uses is None:
            self._uses = self._restored()
        use = next(self._uses)
        before, self._state = self._state, self._state_behind(self._uses)
        return Served(use.item.batch, use.is_only, before, self._state)

    def stop(self, *, wait: bool) -> None:
        self._upstream.stop(wait=wait)

    def _placed(self, fresh: Fresh) -> Fresh:
        return fresh._replace(batch=self._settings.place(fresh.batch))

    def _restored(self) -> ShuffleBuffer[Use[Fresh]]:
        """The shuffle buffer; what it held when the stream was interrupted is read again."""
        while len(self._held) < len(self._positions_held):
            fresh = next(self._upstream)
            self._held[fresh.position] = self._placed(fresh)
        return ShuffleBuffer(
            self._echo,
            self._settings.shuffle_buffer,
            seed=self._state.seed,
            num_drawn=self._state.num_drawn,
            held=tuple(Use(self._held[use.item.position], use.is_only) for use in self._state.held),
        )

    def _state_behind(self, uses: ShuffleBuffer[Use[Fresh]]) -> State:
        position = self._fresh.position or self._state.position
        if self._echo.num_uses == 0:
            position = Position(position.number, position.ordinal + 1)
        return State(
            seed=self._state.seed,
            position=position,
            num_uses=self._echo.num_uses,
            credit=self._echo.credit,
            num_drawn=uses.num_drawn,
            held=uses.held,
            num_steps=self._state.num_steps + 1,
            num_fresh=self._echo.num_fresh,
        )


class _FreshBatches(Iterator[Fresh]):
    """Fresh batches of a valid structure; of the reads that fail, some may be skipped."""

    def __init__(self, upstream: Iterator[Fresh], *, most_failures: int, meter: Meter) -> None:
        self._upstream = upstream
        self._most_failures = most_failures
        self._num_failures = 0  # in a row
        self._meter = meter
        self.position: Position | None = None

    def __next__(self) -> Fresh:
        while True:
            try:
                fresh = next(self._upstream)
            except (EmptyPassError, StoppedError):
                raise
            except Exception as error:
                self._num_failures += 1
                if self._num_failures >= self._most_failures:
                    raise
                self._skip(error)
            else:
                checked(fresh.batch)
                self._num_failures = 0
                self.position = fresh.position
                return fresh

    def _skip(self, error: Exception) -> None:
        if self._meter.num_skipped == 0:
            notes = " ".join(getattr(error, "__notes__", []))
            warnings.warn(
                f"A read failed and was skipped: {error!r}. {notes} Further ones are skipped "
                "without a warning; stats().skipped_reads counts them.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._meter.skipped()


def _augmenter(augment: Callable[[Batch], Batch]) -> Callable[[Served], Served]:
    def augmented(served: Served) -> Served:
        return served._replace(waiting=HostBatch(checked(augment(served.own()))), is_only=True)

    return augmented
