"""What a dataset serves, to whoever asks: the one stream, and where it stands."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from keras_echo.reading.prefetcher import StoppedError
from keras_echo.serving.index_peeks import IndexPeeks
from keras_echo.serving.iterator_peeks import Iteration, IteratorPeeks
from keras_echo.serving.keras_calls import current_call
from keras_echo.serving.pipeline import Pipeline, Served, Settings
from keras_echo.serving.trail import Trail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keras_echo.echoing.state import State
    from keras_echo.memory.batch import Batch
    from keras_echo.reading.stream import Position
    from keras_echo.serving.fit_input import FitInput
    from keras_echo.serving.iterator_peeks import Peeks

_NUMBERS_KEPT = 1024  # of the last uses; TensorFlow fetches a few ahead
_MOST_PEEKED = 2  # batches that Keras reads before an epoch; see keras_echo.serving.keras_calls


class Feed:
    """The stream of a dataset, served to one asker after the other. Thread-safe.

    Args:
        settings: What its pipelines are made of.
        state: Where it begins.

    Attributes:
        num_served: Batches that were handed out so far, those included that are served again.
        num_ahead: Fresh batches that are to lie ready beside the next one.
        is_iterated: Whether the last batch went to an iterator, and not to a `PyDataset`.
    """

    _pipeline: Pipeline

    def __init__(self, settings: Settings, state: State) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._standing = threading.Lock()  # of what says where the stream stands
        self.num_served = 0
        self.is_iterated = False
        self._num_ahead = 0
        self._numbers: deque[tuple[int, int]] = deque(maxlen=_NUMBERS_KEPT)
        self._finalizer: weakref.finalize[..., Feed] | None = None
        self._peeks = IndexPeeks[Served](lambda: next(self._pipeline), state)
        self._iterators = IteratorPeeks(self._peeks.put_back)
        self._trail = Trail()
        self._has_warned = False
        self._teller: int | None = None  # the thread that last told of an epoch
        self._begin(state)

    def serve(self, index: int, as_taken: FitInput) -> Batch:
        """The next batch, for a `PyDataset` that was asked for `index`, in the form for Keras."""
        with self._lock:
            self._end_peek_that_failed()
            try:
                self._mend()
                self.num_served += 1
                self.is_iterated = False
                if self._is_peek(index):
                    batch = self._peek(index).hand_out(may_return=True)
                    return as_taken.peeked(batch, index)
                served = self._peeks.next()
                batch = as_taken(served.hand_out(may_return=self._peeks.is_peek))
                if self._peeks.is_in_epoch and threading.get_ident() != self._teller:
                    # A thread of tf.data asks, for a fit().
                    as_taken.check_fits(batch, partial(self._name, served))
                self._move_on(served)
            except BaseException as error:
                self._break(error)
                raise
            return batch

    def on_epoch_begin(self) -> None:
        """Keras calls this; see `keras_echo.serving.keras_calls`."""
        call = current_call()
        if call is not None and call.method != "fit":
            self._warn_of(call.method)
        with self._lock:
            self._teller = threading.get_ident()
            self._peeks.on_epoch_begin(is_peek=call is not None and not call.has_begun)

    def on_epoch_end(self) -> None:
        """Keras calls this; see `keras_echo.serving.keras_calls`."""
        with self._lock:
            self._peeks.on_epoch_end()

    def iterate(self, peeks: Peeks, num_batches: int | None = None) -> Iterator[Batch]:
        """Yields the next batches, from the host's memory; see `keras_echo.serving.iterator_peeks`.

        Args:
            peeks: What may be a peek.
            num_batches: How many; None for no end.
        """
        iteration = Iteration(peeks, num_batches)
        while True:
            with self._lock:
                may_return = self._iterators.may_return(iteration)
                if may_return is None:
                    return
                if self._peeks.is_peek:  # of a fit() that an exception ended
                    self._peeks.on_epoch_end()
                try:
                    self._mend()
                    self.num_served += 1
                    self.is_iterated = True
                    served = self._peeks.next()
                    batch = served.from_host(may_return=may_return)
                    self._move_on(served)
                    self._iterators.took(iteration, served)
                except BaseException as error:
                    self._break(error)
                    self._iterators.trains()
                    raise
            yield batch

    def first(self) -> Batch:
        """The next batch, only to peek at; it is served again."""
        with self._lock:
            try:
                self._mend()
                return self._peek(0).waiting.batch
            except BaseException as error:
                self._break(error)
                raise

    def fill(self, num_batches: int, timeout_seconds: float) -> bool:
        """Waits until fresh batches lie ready; see `Pipeline.fill`."""
        return self._pipeline.fill(num_batches, timeout_seconds)

    @property
    def num_ahead(self) -> int:
        """See the class."""
        return self._num_ahead

    @num_ahead.setter
    def num_ahead(self, num: int) -> None:
        self._num_ahead = self._pipeline.gap.num_ahead = num

    @contextmanager
    def steady(self) -> Iterator[None]:
        """Inside, each output gets the uses that the factor says, whoever has to wait."""
        gap = self._pipeline.gap
        was_elastic, gap.is_elastic = gap.is_elastic, False
        try:
            yield
        finally:
            gap.is_elastic = was_elastic

    def upcoming(self) -> dict[Position, Callable[[], Batch]]:
        """The fresh batches that lie ready; see `Pipeline.upcoming`."""
        return self._pipeline.upcoming()

    def number_of_use(self, step: int) -> int:
        """Which use of its batch was served at a step of the stream, from 1; 0: nobody knows."""
        return dict(self._numbers).get(step, 0)

    @property
    def state(self) -> State:
        """Where the stream stands after the last batch that was served."""
        with self._standing:
            standing: State = self._peeks.standing
            return replace(standing, factors_ahead=self._factors_ahead())

    def begin_training(self) -> int:
        """A training begins that tells how far it has come; see `trained`.

        Returns:
            The steps of the stream so far.
        """
        with self._lock:
            self._iterators.training_begins()
            with self._standing:
                state: State = self._peeks.standing
                self._trail.begin(state)
                return state.num_steps

    def end_training(self) -> None:
        """That training has ended."""
        with self._standing:
            self._trail.end()

    def trained(self, num_steps: int) -> None:
        """Training has taken so many steps of the stream; others may be fetched already."""
        with self._standing:
            self._trail.trained(num_steps)

    def state_after(self, num_steps: int) -> State:
        """Where the stream stood after so many steps, from those on that training came to.

        Raises:
            LookupError: If so many steps haven't been served.
        """
        with self._standing:
            state, factors = self._trail.after(num_steps)
            return replace(state, factors_ahead=(*factors, *self._factors_ahead()))

    def go_on_from(self, state: State) -> None:
        """Goes on where `state` was taken."""
        # First without the lock: whoever holds it may be waiting for a batch.
        self._pipeline.stop(wait=False)
        with self._lock:
            self._pipeline.stop()
            self._iterators = IteratorPeeks(self._peeks.put_back)
            self._begin(state)

    def _factors_ahead(self) -> tuple[float, ...]:
        ahead = self._peeks.ahead
        end: State = ahead[-1].after if ahead else self._peeks.standing
        return (
            *(served.factor for served in ahead),
            *self._pipeline.factors.since(end.num_steps),
        )

    def stop(self) -> None:
        """Ends all threads and processes, and lets go of what was read ahead.

        The next call starts again after the last batch that was served.
        """
        self._pipeline.stop(wait=False)
        with self._lock:
            self._restart()

    def _name(self, served: Served) -> str:
        """What a batch is, for messages."""
        if served.position is None:
            return "A batch of examples of the source"
        index = self._settings.source.index_of(served.position, served.before.seed)
        return f"Batch {index} of the source"

    def _peek(self, index: int) -> Served:
        with self.steady():
            return self._peeks.peek(index)

    def _is_peek(self, index: int) -> bool:
        """Whether Keras wants `index` only to learn the shape of a batch.

        An epoch that an exception ended was never told to be over: in one, the first indices may
        be those of the peek of the next `fit()`.
        """
        if index >= _MOST_PEEKED or (call := current_call()) is None:
            return False
        if self._peeks.is_in_epoch:
            return not (self._peeks.is_peek or call.has_begun)
        return call.may_peek

    def _end_peek_that_failed(self) -> None:
        """Ends a peek that an exception ended: nobody else tells of that.

        Then no method of Keras is at work on the thread that began it. On the threads of `tf.data`
        there never is.
        """
        if self._peeks.is_peek and threading.get_ident() == self._teller and current_call() is None:
            self._peeks.on_epoch_end()

    def _warn_of(self, method: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{method}() reads the training stream of an EchoingPyDataset: batches are "
                "repeated and shuffled, and training goes on after them. Pass the source itself "
                "to evaluate(), to predict() and as validation_data.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _move_on(self, served: Served) -> None:
        if not self._peeks.is_peek:
            self._numbers.append((served.before.num_steps, served.number))
        with self._standing:
            self._peeks.moved_on()
            if self._peeks.standing is served.after:
                self._trail.served(served.after, served.factor)
            self._pipeline.factors.forget(self._peeks.standing.num_steps)

    def _break(self, error: BaseException) -> None:
        """Has the pipeline built anew before the next batch: Ctrl-C can come anywhere."""
        if isinstance(error, StoppedError):
            return
        self._is_broken = True
        # Not waited for: what went wrong should be heard at once.
        self._pipeline.stop(wait=False)

    def _mend(self) -> None:
        if self._is_broken:
            self._restart()

    def _restart(self) -> None:
        """Builds another pipeline; of the last one nothing stays but where it stood."""
        self._pipeline.stop()
        self._begin(self.state)

    def _begin(self, state: State) -> None:
        self._is_broken = True  # until it is through: Ctrl-C can come here, too
        if self._finalizer is not None:
            self._finalizer.detach()  # it would keep the last pipeline, and what that read ahead
        with self._standing:
            self._peeks.go_on_from(state.without_batches())
            self._pipeline = Pipeline(self._settings, self._peeks.standing)
            self._pipeline.gap.num_ahead = self._num_ahead
        # Without a reference to self, and without waiting: this runs on any thread.
        self._finalizer = weakref.finalize(self, self._pipeline.stop, wait=False)
        self._is_broken = False
