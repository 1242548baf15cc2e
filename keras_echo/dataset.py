"""`EchoingPyDataset`: what Keras sees of a pipeline."""

from __future__ import annotations

import random
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import keras

from keras_echo._checks import check_choice, check_count, check_count_or_auto, check_seconds
from keras_echo._messages import expected
from keras_echo.echoing.batch_echo import BatchEchoing
from keras_echo.echoing.example_echo import ExampleEchoing
from keras_echo.echoing.repetition import NUM_KEPT
from keras_echo.echoing.state import State, factor_of, foreign
from keras_echo.factor import EchoFactor
from keras_echo.machine import num_cores
from keras_echo.memory.placement import batch_placement, example_placement
from keras_echo.metering import EchoStats, Meter
from keras_echo.probe import Input, Probe
from keras_echo.reading.as_source import as_source
from keras_echo.reading.batch_form import BatchForm
from keras_echo.reading.on_error import Retry, Skip, policy
from keras_echo.reading.reader_count import Fixed, ReaderCount, Search
from keras_echo.reading.wishes import cached_reads, parallelism_of, steps_per_epoch_of
from keras_echo.serving.as_grain import as_grain
from keras_echo.serving.as_tf_dataset import as_tf_dataset
from keras_echo.serving.augmentation import augmenter
from keras_echo.serving.feed import Feed
from keras_echo.serving.fit_input import FitInput
from keras_echo.serving.interrupts import INTERRUPTS
from keras_echo.serving.keras_calls import current_call
from keras_echo.serving.pipeline import Settings
from keras_echo.serving.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.memory.batch import Batch
    from keras_echo.reading.cache import Cache


class EchoingPyDataset(keras.utils.PyDataset):
    """Serves what a source reads several times, so that training needn't wait for reading.

    An epoch is a fixed number of optimizer steps, whatever the echoing factor: with factor e, an
    epoch reads 1/e of a pass, and the next one goes on where it stopped. At factor 1 the dataset
    is transparent: the source's batches, in its order unless `shuffle` draws another. So training
    is bit for bit that of `fit(source, shuffle=False)`, with `shuffle=False` or a source in
    sequence. That needs `shuffle_buffer="auto"`, the default, or one that keeps the order (and with
    it, for `echo="example"`, batches of one size).

    Reading happens on threads, or in processes where the source asks for them, that belong to the
    dataset and read ahead of training by `max_queue_size` batches. They end by themselves a few
    seconds after nobody asks for batches any more, and at once with `close()`.

    Args:
        source: A `keras.utils.PyDataset`, a `tf.data.Dataset`, a torch `DataLoader`, a Grain
            dataset, a callable that returns an iterator of batches, or arrays as a tuple `(x,)`,
            `(x, y)` or `(x, y, sample_weight)`. x alone may be an array or a dict of arrays, and so
            may the batches of all other sources.
        echo_factor: How often each batch or example is used: a float >= 1, or an `EchoFactor` to
            share. With a fractional factor, n of them are used floor(n * e) times.
        echo: What is repeated. `"batch"`: whole batches. `"example"`: single examples, which are
            drawn from the shuffle buffer into new batches, on a thread of the dataset. All arrays
            of a batch must have one row for each example, and one example the same shape in all
            batches. All batches that are served are full, but at factor 1 (see `shuffle_buffer`):
            of the size of the larger one of the source's first two, whose last batch of a pass may
            be shorter.
        shuffle_buffer: What to hold after the echo and to draw from at random, so that copies
            don't follow each other. It fills as it goes. `"auto"`: the uses of 8 batches, in at
            most 1 GiB, or 8 batches' worth of examples, while the factor is above 1. When it falls
            to 1, what is held is served (of examples, the last ones in a shorter batch), and then
            the source's own batches. A number is held at any factor. With `echo="batch"`, of
            batches; 0 keeps the order. With `echo="example"`, of examples, each held once however
            often it is used; 0 means 8 batches' worth, and a buffer of no more than one batch keeps
            the order.
        augment: Applied to every copy after the echo, on as many threads of the dataset as there
            are `workers` (with `"auto"`, as the source wishes). A function of a batch; if it has a
            parameter `rng`, it gets a `numpy.random.Generator` of that copy, and the same seed then
            gives the same result for any number of workers. Or a Keras preprocessing layer, a
            `keras.layers.Pipeline` or a model of such layers, seeded per copy on the CPU: it gets
            the batch if that is a dict or an array, and x alone if it is a tuple. Either may change
            its argument in place.
        steps_per_epoch: Optimizer steps in a Keras epoch; default: the source's length.
        shuffle: Whether a random-access source (a `PyDataset` with a length, or arrays) is read in
            an order that is drawn anew in each pass. Arrays are shuffled by examples.
        batch_size: Examples in a batch, for arrays.
        placement: Where batches wait for their reuse. `"host"`: each use is a copy in the host's
            memory. `"device"`: a batch is transferred once, and its copies are served from the
            accelerator's memory, as arrays of the backend; at most `shuffle_buffer` + 6 batches
            are held there. `"auto"`: the device if they take 1 GiB at most (six batches, with
            `shuffle_buffer="auto"`, which keeps to 1 GiB by itself) and nothing augments them,
            otherwise the host. With `echo="example"` it is the shuffle
            buffer that lies there; `"auto"` puts it on accelerators only.
        seed: Seed of all that is random. By default one is drawn from Python's `random`, which
            `keras.utils.set_random_seed` seeds.
        workers: How many threads or processes read; default: the source's own wish. `"auto"`
            begins with that, and has more of them read while training waits and they bring more:
            at most 32, or as many as there are processors where reading computes. What is read,
            and in which order, is the same for any number. A source that is read in sequence (no
            `PyDataset` and no arrays) always has one.
        use_multiprocessing: Whether a `PyDataset` is read by processes; default: its own wish.
        max_queue_size: How many batches to read ahead; default: the source's own wish.
        max_uses: How often a batch or example may be used while training waits and no fresh one is
            there: a float >= 1, of which `echo_factor` uses are due anyway. Of batches, the last
            four are kept for it. At factor 1 that begins after a wait of several steps; of examples
            nothing is kept there with `shuffle_buffer="auto"`. What is used then depends on the
            clock; the state says what was used, so resuming is exact all the same. Default: that of
            the `EchoFactor`, or to wait.
        on_error: What a failing read does: `"raise"` ends training with the source's exception,
            `"skip"` leaves the batch out, warns once and lists it in `stats().skipped`; a source
            that fails for a whole pass raises all the same. `Skip` sets a limit to that, and
            `Retry` first tries the read again. A batch whose structure, dtypes or ranks aren't
            those of the first batch counts as a failing read, but isn't tried again.
        read_timeout: Seconds after which a read that doesn't end fails, with a `TimeoutError`.
            Worker processes are killed then. A thread can't be: another one takes its place, and
            it ends when the read does. Default: reads take as long as they take.
        cache: Keeps fresh batches of a `PyDataset` for later passes, in memory and in files; see
            `Cache`. The stream is the same with it. Default: every pass reads everything.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument has a wrong value, or the source is empty.

    Examples:
        >>> dataset = EchoingPyDataset((x_train, y_train), echo_factor=4, batch_size=64)
        >>> model.fit(dataset, epochs=10)
    """

    def __init__(
        self,
        source: Any,
        *separate: Any,
        echo_factor: float | EchoFactor = 1.0,
        echo: Literal["batch", "example"] = "batch",
        shuffle_buffer: int | Literal["auto"] = "auto",
        augment: Callable[..., Batch] | None = None,
        steps_per_epoch: int | None = None,
        shuffle: bool = True,
        batch_size: int = 32,
        placement: Literal["auto", "host", "device"] = "auto",
        seed: int | None = None,
        workers: int | Literal["auto"] | None = None,
        use_multiprocessing: bool | None = None,
        max_queue_size: int | None = None,
        on_error: Literal["raise", "skip"] | Skip | Retry = "raise",
        read_timeout: float | None = None,
        max_uses: float | None = None,
        cache: Cache | None = None,
    ) -> None:
        if separate:
            raise TypeError(
                expected(
                    "source",
                    "be one argument, and all others be named",
                    (source, *separate),
                    "Pass (x, y) as one tuple: EchoingPyDataset((x, y), ...)",
                )
            )
        if isinstance(source, EchoingPyDataset):
            raise TypeError(
                expected(
                    "source",
                    "be what is to be echoed, not another EchoingPyDataset",
                    source,
                    "Wrap its source once, with the echo_factor that the two together would have",
                )
            )
        # Keras gets no workers: each of its own would read everything once more.
        super().__init__(workers=1, use_multiprocessing=False)
        check_choice("echo", echo, ("batch", "example"))
        check_choice("placement", placement, ("auto", "host", "device"))
        if read_timeout is not None:
            read_timeout = check_seconds("read_timeout", read_timeout)
        if shuffle_buffer != "auto":
            counted = "a number of batches or examples"
            shuffle_buffer = check_count_or_auto("shuffle_buffer", shuffle_buffer, 0, counted)
        batch_size = check_count("batch_size", batch_size, 1)
        if steps_per_epoch is not None:
            steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch, 1)
        if seed is not None:
            seed = check_count("seed", seed, 0)
        if workers is not None and workers != "auto":
            workers = check_count_or_auto("workers", workers, 1, "a number of readers")
        if max_queue_size is not None:
            max_queue_size = check_count("max_queue_size", max_queue_size, 1)
        wrapped = as_source(source, shuffle=shuffle, batch_size=batch_size)
        factor = echo_factor if isinstance(echo_factor, EchoFactor) else EchoFactor(echo_factor)
        self._factor = factor
        if max_uses is not None:
            self._factor.max_uses = max_uses
        augments = augment is not None
        self._echoing = (
            ExampleEchoing(example_placement(placement, augments=augments), shuffle_buffer)
            if echo == "example"
            else BatchEchoing(
                batch_placement(
                    placement,
                    num_waiting=NUM_KEPT + (0 if shuffle_buffer == "auto" else shuffle_buffer),
                    augments=augments,
                ),
                shuffle_buffer,
            )
        )
        self._num_steps = steps_per_epoch_of(steps_per_epoch, wrapped)
        number = None if workers == "auto" else workers
        parallelism = parallelism_of(wrapped, number, use_multiprocessing, max_queue_size)
        meter = Meter()
        plan = Search if workers == "auto" and not wrapped.is_sequential else Fixed
        self._settings = Settings(
            source=wrapped,
            parallelism=parallelism,
            reader_count=ReaderCount(
                plan(parallelism.workers), meter, num_cores(), lambda: factor.value > 1
            ),
            factor=self._factor,
            echoing=self._echoing,
            augment=None if augment is None else augmenter(augment),
            on_error=policy(on_error),
            read_timeout=read_timeout,
            form=BatchForm(),
            meter=meter,
            cache=None if cache is None else cached_reads(cache, wrapped, meter),
        )
        state = State(seed=random.randrange(2**31) if seed is None else seed)
        self._feed = Feed(self._settings, state)
        self._fit_input = FitInput()
        self._num_left: int | None = None
        self._has_warned_of_source = False

    def __len__(self) -> int:
        return self._num_steps

    @property
    def num_batches(self) -> int:
        """Batches in the epoch that `fit()` begins next; less where it was interrupted before.

        Keras asks for it before training, and again where an epoch begins (Keras 3.15,
        `keras/src/trainers/data_adapters/py_dataset_adapter.py`).
        """
        if self._num_left is None:
            return self._num_steps
        call = current_call()
        if call is not None and not call.has_begun:
            self._num_left = None  # another fit() begins: the one that was interrupted broke off
            return self._num_steps
        return self._num_left

    def __getitem__(self, index: int) -> Batch:
        """Serves the next batch of the stream, whatever the index. Thread-safe.

        Only where Keras peeks before training, batches are served again: see
        `keras_echo.serving.keras_calls`. A loop of the user's own uses every batch once, in any
        order of the indices, with or without `on_epoch_begin`.

        Returns:
            The batch in the form in which Keras takes it on its current backend: see
            `keras_echo.serving.fit_input`.

        Raises:
            Exception: What the source raised, with a note that names the index. The next call
                tries that batch again.
        """
        return self._feed.serve(index, self._fit_input)

    def on_epoch_begin(self) -> None:
        """Keras calls this; see `keras_echo.serving.keras_calls`.

        Raises:
            ValueError: If Keras, on TensorFlow, can't take a None inside x or y.
        """
        self._fit_input.on_epoch_begin()
        if keras.backend.backend() == "tensorflow":
            INTERRUPTS.listen()
        self._feed.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Keras calls this; see `keras_echo.serving.keras_calls`."""
        INTERRUPTS.stop()
        self._feed.on_epoch_end()

    @property
    def echo_factor(self) -> float:
        """How often each batch is used. May be set at any time, from any thread."""
        return self._factor.value

    @echo_factor.setter
    def echo_factor(self, value: float) -> None:
        self._factor.value = value

    @property
    def max_uses(self) -> float | None:
        """How often a batch may be used while no fresh one is there. May be set at any time."""
        return self._factor.max_uses

    @max_uses.setter
    def max_uses(self, value: float | None) -> None:
        self._factor.max_uses = value

    def stats(self) -> EchoStats:
        """Counts and times so far."""
        state, meter = self._feed.state, self._settings.meter
        cache = self._settings.cache
        number, ordinal = state.position
        length = self._settings.source.length
        return EchoStats(
            steps=state.num_steps,
            fresh_batches=state.num_fresh,
            passes=number + (length is not None and ordinal >= length),
            skipped_reads=state.skipped.num,
            skipped=state.skipped.last,
            retried_reads=meter.num_retried,
            reads=meter.num_reads,
            read_seconds=meter.read_seconds,
            wait_seconds=meter.wait_seconds,
            echo_factor=self.echo_factor,
            extra_uses=state.num_extra,
            held_seconds=meter.held_seconds,
            compute_seconds=meter.compute_seconds,
            batch_bytes=meter.batch_bytes,
            num_readers=self._settings.reader_count.number,
            cache_hits=meter.num_hits,
            cached_bytes=0 if cache is None else cache.num_bytes,
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands after the last batch that was served, JSON-serialisable.

        Another dataset that is built with the same arguments and loads this goes on with the next
        batch. With a shuffle buffer, the batches of what it held are read again. A source that is
        read in sequence goes on from its own state, if it has one, and is read and dropped up to
        that place of its pass if not. What a source must do for that stands in `docs/resuming.md`.

        A warning says if the order of a source can't be had again; and, after `load_state_dict`,
        if the source gives another batch than before.

        TensorFlow fetches a few batches ahead of training: call this at the end of an epoch, or use
        `BackupAndRestore`, which knows how far training has come.
        """
        return self._as_json(lambda: self._feed.state)

    def _as_json(self, state: Callable[[], State]) -> dict[str, Any]:
        unseeded = self._settings.source.unseeded
        if unseeded is not None and not self._has_warned_of_source:
            self._has_warned_of_source = True
            warnings.warn(_not_exactly(unseeded), RuntimeWarning, stacklevel=3)
        factor = self.echo_factor  # first: what is made after a change then says so itself
        return {**state().as_json(factor), "readers": self._settings.reader_count.as_json()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken.

        Raises:
            ValueError: If `state` doesn't come from `state_dict`, or from another kind of `echo`.
        """
        echoing = self._echoing
        loaded = State.from_json(state, echoing.kind, echoing.state_from_json)
        factor = factor_of(state)
        if "readers" in state:  # older states don't say
            try:
                self._settings.reader_count.go_on_from(state["readers"])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(foreign(state)) from error
        self.echo_factor = factor
        self._feed.go_on_from(loaded)

    def as_tf_dataset(self, element_spec: Any = None) -> Any:
        """The same stream as a `tf.data.Dataset`, for code that takes no `PyDataset`.

        Each iterator is an epoch of `len(self)` batches and goes on where the last one stopped;
        what Keras only peeks at is served again. One iterator at a time: a new one ends the one
        before it. Batches come from the host's memory, whatever `placement` is.

        Args:
            element_spec: The `tf.TypeSpec`s of a batch. By default a batch is read to see: the
                number of examples may then change, and no other dimension.

        Raises:
            ImportError: If TensorFlow isn't installed.
            ValueError: If a batch has anything but None and arrays with a batch dimension, dense,
                sparse or ragged.

        Examples:
            >>> task = keras_hub.models.ImageClassifier(...)
            >>> task.fit(dataset.as_tf_dataset(), shuffle=False, epochs=10)
        """
        return as_tf_dataset(self._feed, len(self), element_spec)

    def as_grain(self) -> Any:
        """The same stream as a `grain.IterDataset` without an end.

        As `as_tf_dataset`, but for the epoch's length, which Grain can't tell Keras: pass
        `steps_per_epoch`. The state of its iterators is that of this dataset.

        Raises:
            ImportError: If Grain isn't installed.

        Examples:
            >>> task.fit(dataset.as_grain(), steps_per_epoch=len(dataset), epochs=10)
        """
        return as_grain(self._feed, self.state_dict, self.load_state_dict)

    def close(self) -> None:
        """Ends all threads and processes, after the read that each is at, and lets go of all data.

        The dataset can be used again, and goes on after the last batch that was served: what had
        been read ahead is read once more. A source that is read in sequence is then read and
        dropped up to its place in the pass. Of a cache, the files under a key stay.
        """
        self._feed.stop()
        if self._settings.cache is not None:
            self._settings.cache.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def progress_of(dataset: EchoingPyDataset) -> Progress:
    """How far a training on a dataset has come."""
    return Progress(
        dataset._feed,
        dataset._as_json,
        dataset.load_state_dict,
        partial(setattr, dataset, "_num_left"),
    )


def probe_of(dataset: EchoingPyDataset) -> Probe:
    """What a profiler needs of a dataset."""
    feed, settings = dataset._feed, dataset._settings
    return Probe(
        settings.factor,
        settings.meter,
        reader_count=settings.reader_count,
        input=Input(
            is_sequential=settings.source.is_sequential,
            uses_processes=settings.parallelism.use_multiprocessing,
            queue_size=settings.parallelism.max_queue_size,
            num_batches=settings.source.length,
            can_be_cached=settings.source.no_cache is None and settings.cache is None,
        ),
        sees_waits=keras.backend.backend() != "tensorflow",  # there a thread of tf.data asks
        num_fresh=lambda num_steps: settings.echoing.num_fresh(
            feed.state.echo, num_steps, settings.factor.value
        ),
        fill=feed.fill,
        stats=dataset.stats,
        num_served=lambda: feed.num_served,
        unseen=feed,
    )


def _not_exactly(unseeded: object) -> str:
    return expected(
        "The order of a source",
        "come from a seeded generator, for training to resume with the batches that were missing",
        unseeded,
        "Pass generator=torch.Generator().manual_seed(0) to the DataLoader or its sampler. As it "
        "is, training resumes at this place, and not with these batches",
    )
