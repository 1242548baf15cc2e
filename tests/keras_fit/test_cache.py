"""With a cache the stream is the same, bit for bit, and what was kept is not read again."""

import functools
import gc
import itertools
import sys
import threading
import tracemalloc

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_echo
from keras_echo import Cache, EchoingPyDataset
from keras_echo.metering import Meter
from keras_echo.profiling.measuring.upstream import upstream
from keras_echo.reading.cache import CachedReads
from keras_echo.reading.prefetcher import THREAD_NAME, Prefetcher
from keras_echo.reading.stream import Fresh, Position, Read

LENGTH, ROWS = 8, 3
BATCH_BYTES = ROWS * 5 * 4 + ROWS * 8
FILE_BYTES = 400  # more than the file of one batch, less than that of two


def values(index):
    draw = np.random.default_rng(index)
    return draw.normal(size=(ROWS, 5)).astype("float32"), np.full((ROWS, 1), index, "int64")


class Source(keras.utils.PyDataset):
    """Makes every batch anew; tells on which it was asked for."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.read = []

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        self.read.append(index)
        return values(index)


class Refilled(Source):
    """Fills one buffer again and again."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.buffers = values(0)

    def __getitem__(self, index):
        self.read.append(index)
        for buffer, part in zip(self.buffers, values(index), strict=True):
            buffer[:] = part
        return self.buffers


class Tensors(Source):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return keras.ops.convert_to_tensor(x), y


class Words(Source):
    """Has objects in it, which no file takes."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return {"x": x, "words": np.array([f"word {index}"] * ROWS, object)}, y


SOURCES = {kind.__name__: kind for kind in (Source, Refilled, Tensors)}

PLACES = {
    "memory": {"memory_bytes": 2**20},
    "files": {"directory_bytes": 2**20},
    "key": {"directory_bytes": 2**20, "key": "k"},
    "both": {"memory_bytes": 3 * BATCH_BYTES, "directory_bytes": 2**20},
    "half": {"memory_bytes": 2 * BATCH_BYTES, "directory_bytes": 2 * FILE_BYTES},
}


def cache_in(folder, place):
    arguments = PLACES[place]
    return Cache(directory=folder if "directory_bytes" in arguments else None, **arguments)


def spoil(batch):
    """Writes into all that can be written to."""
    for leaf in keras.tree.flatten(batch):
        if isinstance(leaf, np.ndarray) and leaf.flags.writeable:
            leaf[...] = 77
        elif hasattr(leaf, "add_"):
            leaf.add_(77)


def served(dataset, num_batches):
    """The bytes of the next batches; each is spoilt after it was looked at."""
    found = []
    for number in range(num_batches):
        batch = dataset[number]
        leaves = [keras.ops.convert_to_numpy(leaf) for leaf in keras.tree.flatten(batch)]
        found.append([(leaf.dtype.str, leaf.shape, leaf.tobytes()) for leaf in leaves])
        del leaves
        spoil(batch)
    return found


def add_in_place(batch, rng):
    x, y = batch
    if isinstance(x, np.ndarray):
        x += rng.normal()
        return x, y
    return x + rng.normal(), y


def stream(source, cache=None, num_batches=3 * LENGTH + 1, **arguments):
    arguments = {"seed": 5, **arguments}
    with EchoingPyDataset(source, cache=cache, steps_per_epoch=num_batches, **arguments) as dataset:
        return served(dataset, num_batches)


@functools.cache
def without_cache(**arguments):
    return stream(Source(), **arguments)


@settings(max_examples=60)
@given(
    kind=st.sampled_from(sorted(SOURCES)),
    place=st.sampled_from(sorted(PLACES)),
    echo=st.sampled_from(["batch", "example"]),
    factor=st.sampled_from([1.0, 1.5, 3.0]),
    placement=st.sampled_from(["auto", "host", "device"]),
    shuffle=st.booleans(),
    augments=st.booleans(),
    workers=st.integers(1, 4),
)
def test_the_stream_is_the_same_and_passes_are_alike(
    tmp_path_factory, kind, place, echo, factor, placement, shuffle, augments, workers
):
    arguments = {
        "echo": echo,
        "echo_factor": factor,
        "placement": "host" if augments and placement == "device" else placement,
        "shuffle": shuffle,
        "augment": add_in_place if augments else None,
    }
    source = SOURCES[kind]()
    workers = 1 if kind == "Refilled" else workers
    cache = cache_in(tmp_path_factory.mktemp("cache"), place)
    found = stream(source, cache, workers=workers, **arguments)
    assert found == without_cache(**arguments)
    if place == "memory" or (kind != "Tensors" and place != "half"):
        # Two readers may be at the end of one pass and at the start of the next.
        assert len(source.read) <= LENGTH + workers


@pytest.mark.parametrize("place", sorted(PLACES))
def test_each_index_has_the_same_bytes_in_every_pass(tmp_path, place):
    with EchoingPyDataset(Source(), cache=cache_in(tmp_path, place), shuffle=True) as dataset:
        passes = [sorted(served(dataset, LENGTH)) for _ in range(4)]
    right = [[(part.dtype.str, part.shape, part.tobytes()) for part in values(i)] for i in range(8)]
    assert passes == [sorted(right)] * 4


class Slow(Source):
    """For worker processes, which find it by its module."""


@pytest.mark.parametrize(
    ("place", "arguments"),
    [
        ("memory", {"echo_factor": 1.0}),
        ("half", {"echo_factor": 2.0, "echo": "example", "augment": add_in_place}),
    ],
    ids=["memory", "half"],
)
def test_worker_processes_read_what_is_not_kept(tmp_path, place, arguments):
    cache = cache_in(tmp_path, place)
    source = Slow(workers=2, use_multiprocessing=True, max_queue_size=2)
    num_batches = int(3 * LENGTH * arguments["echo_factor"])
    with EchoingPyDataset(source, cache=cache, seed=5, **arguments) as dataset:
        found = served(dataset, num_batches)
        stats = dataset.stats()
    assert found == stream(Source(), num_batches=num_batches, **arguments)
    num_kept = LENGTH if place == "memory" else 4
    assert stats.cache_hits >= num_kept  # those of the second pass, which was read to its end


@pytest.mark.parametrize("num_kept", [0, 3, LENGTH])
def test_as_many_are_kept_as_fit_and_no_byte_more(num_kept):
    source = Source()
    cache = Cache(memory_bytes=(num_kept + 1) * BATCH_BYTES - 1)
    with EchoingPyDataset(source, cache=cache, workers=1, max_queue_size=1) as dataset:
        assert dataset.stats().cached_bytes == 0
        served(dataset, 10 * LENGTH)
        stats = dataset.stats()
        counts = [source.read.count(index) for index in range(LENGTH)]
    assert stats.cached_bytes == num_kept * BATCH_BYTES
    assert stats.cache_hits + len(source.read) == stats.reads
    assert counts.count(1) == num_kept  # from the first pass on, and never thrown out
    assert all(count >= 10 for count in counts if count != 1)


def test_fit_trains_as_without_a_cache(recorder, numbered, tmp_path):
    trained_on = []
    for cache in (None, cache_in(tmp_path, "half"), Cache(memory_bytes=10**6)):
        model = recorder()
        with EchoingPyDataset(numbered(6), cache=cache, seed=3, echo_factor=1.5) as dataset:
            model.fit(dataset, epochs=4, verbose=0)
        trained_on.append(model.trained_on())
    assert trained_on[0] == trained_on[1] == trained_on[2]
    assert len(set(trained_on[0])) == 6


@pytest.mark.parametrize("place", sorted(PLACES))
def test_close_lets_go_of_all_but_named_files(tmp_path, place):
    source = Source()
    dataset = EchoingPyDataset(source, cache=cache_in(tmp_path, place), seed=5, shuffle=True)
    first = served(dataset, LENGTH + 3)
    dataset.close()
    named = dataset.stats().cached_bytes
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (named > 0) == (len(files) > 0) == (place == "key")
    source.read.clear()
    assert first + served(dataset, LENGTH) == stream(
        Source(), num_batches=2 * LENGTH + 3, shuffle=True
    )
    assert (source.read == []) == (place == "key")
    assert dataset.stats().cached_bytes > 0
    dataset.close()


def test_a_dataset_that_is_forgotten_leaves_no_file(tmp_path):
    dataset = EchoingPyDataset(Source(), cache=cache_in(tmp_path, "files"))
    served(dataset, LENGTH)
    assert any(tmp_path.rglob("*.batch"))
    del dataset
    gc.collect()
    # A reader that was at work ends in its own time, and the files with it.
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join(10)
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_going_back_and_resuming_use_what_is_kept(tmp_path):
    whole = stream(Source(), num_batches=3 * LENGTH, echo_factor=2.0, shuffle_buffer=2)
    source, cache = Source(), cache_in(tmp_path, "key")
    arguments = {"seed": 5, "echo_factor": 2.0, "shuffle_buffer": 2, "cache": cache}
    with EchoingPyDataset(source, **arguments) as dataset:
        assert served(dataset, 2 * LENGTH + 2) == whole[: 2 * LENGTH + 2]
        state = dataset.state_dict()
        served(dataset, LENGTH - 2)
        num_read = len(source.read)
        dataset.load_state_dict(state)
        assert served(dataset, LENGTH - 2) == whole[2 * LENGTH + 2 :]
    assert num_read == LENGTH
    source.read.clear()
    with EchoingPyDataset(source, **arguments) as dataset:
        dataset.load_state_dict(state)
        assert served(dataset, LENGTH - 2) == whole[2 * LENGTH + 2 :]
    assert source.read == []


def test_what_no_file_takes_is_kept_in_memory_if_it_fits(tmp_path):
    source = Words()
    num_bytes = BATCH_BYTES + ROWS * (8 + sys.getsizeof("word 0"))
    cache = Cache(memory_bytes=2 * num_bytes, directory=tmp_path, directory_bytes=10**6)
    with EchoingPyDataset(source, cache=cache, placement="host") as dataset:
        for _ in range(3 * LENGTH):
            x, y = dataset[0]
            words = [str(word, "utf-8") if isinstance(word, bytes) else word for word in x["words"]]
            assert words == [f"word {int(y[0, 0])}"] * ROWS
        stats = dataset.stats()
    assert stats.cached_bytes == 2 * num_bytes
    assert stats.cache_hits >= 4
    assert list(tmp_path.rglob("*.batch")) == []


def test_reads_that_fail_are_not_kept():
    class Failing(Source):
        def __getitem__(self, index):
            batch = super().__getitem__(index)
            if index == 3 and self.read.count(3) == 1:
                raise OSError("once")
            return batch

    source = Failing()
    with EchoingPyDataset(
        source, cache=Cache(memory_bytes=10**6), shuffle=False, on_error="skip"
    ) as dataset:
        with pytest.warns(RuntimeWarning, match="once"):
            first = [int(dataset[0][1][0, 0]) for _ in range(LENGTH - 1)]
        assert first == [0, 1, 2, 4, 5, 6, 7]
        assert [int(dataset[0][1][0, 0]) for _ in range(2 * LENGTH)] == [*range(LENGTH)] * 2
    assert source.read.count(3) == 2


def reads_of(num_passes):
    for number, index in itertools.product(range(num_passes), range(LENGTH)):
        yield Read(Position(number, index), index)


def test_memory_stays_within_the_bound_over_ten_passes():
    """Besides what is kept: one batch that is read and one that was handed out."""
    rows = np.zeros((250, 1000), "float32")
    bound = 3 * rows.nbytes + rows.nbytes // 2
    cached = CachedReads(Cache(memory_bytes=bound), LENGTH, Meter())
    kept = []
    tracemalloc.start()
    try:
        for read in reads_of(10):
            fresh = cached(read, lambda read: Fresh(read.position, rows + read.index))
            assert fresh.is_ours
            assert (fresh.batch == read.index).all()
            kept.append(cached.num_bytes)
            del fresh
            gc.collect(0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(kept) == 3 * rows.nbytes
    assert 3 * rows.nbytes < peak < bound + 2.2 * rows.nbytes


@pytest.mark.parametrize(("num_kept", "share"), [(0, 1.0), (4, 0.5), (6, 0.25)])
def test_a_fresh_batch_costs_what_is_left_to_read(num_kept, share):
    """A read takes a second by the clock of the test, and a hit none."""
    now = [0.0]
    meter = Meter(clock=lambda: now[0])
    cached = CachedReads(Cache(memory_bytes=num_kept * 8 or 1), LENGTH, meter)

    def read_slowly(read):
        now[0] += 1.0
        return Fresh(read.position, np.array([read.index]))

    readers = Prefetcher(
        read_slowly, reads_of(9), num_workers=1, window_size=1, watch=meter, through=cached
    )
    assert [next(readers).batch[0] for _ in range(9 * LENGTH)] == [*range(LENGTH)] * 9
    readers.stop()
    reads = meter.recent_reads()
    assert upstream(reads[:LENGTH], 1, may_read_ahead=False).seconds == 1.0
    after_the_first_pass = reads[LENGTH - 1 :]
    assert upstream(after_the_first_pass, 1, may_read_ahead=False).seconds == share
    assert meter.num_hits == 8 * num_kept


ARRAYS = np.zeros((8, 2)), np.zeros(8)


class Unsized(Source):
    num_batches = None


class Hooked(Source):
    def on_epoch_end(self):
        pass


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (ARRAYS, "arrays, which lie in memory already"),
        (lambda: iter([ARRAYS]), "a source that is read in sequence"),
        (Unsized(), "a PyDataset without a length"),
        (Hooked(), "a PyDataset with its own on_epoch_end or on_epoch_begin"),
    ],
)
def test_what_has_no_lasting_index_is_refused(source, why):
    with pytest.raises(ValueError, match=f"^cache must be None for {why}"):
        EchoingPyDataset(source, steps_per_epoch=4, cache=Cache(memory_bytes=1000))


def test_what_is_no_cache_is_refused():
    with pytest.raises(TypeError, match=r"Pass keras_echo.Cache\(memory_bytes=2\*\*30\)\.$"):
        EchoingPyDataset(Source(), cache=2**30)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "A cache must have memory or a directory."),
        ({"memory_bytes": -1}, ValueError, "memory_bytes must be at least 0."),
        ({"memory_bytes": 1e9}, TypeError, "memory_bytes must be an integer."),
        ({"memory_bytes": 1, "key": "k"}, ValueError, "key must be None without a directory."),
        ({"directory_bytes": 1}, ValueError, "directory_bytes must be None without a directory."),
        ({"directory": "d"}, TypeError, "directory_bytes must be an integer. Received: None."),
        ({"directory": 3, "directory_bytes": 1}, TypeError, "directory must be a path."),
        ({"directory": "d", "directory_bytes": 1, "key": 3}, TypeError, "key must be a string."),
        *(
            ({"directory": "d", "directory_bytes": 1, "key": key}, ValueError, "key must be a name")
            for key in ("", ".", "..", "a/b", "a\\b")
        ),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(arguments, error, message):
    with pytest.raises(error) as raised:
        keras_echo.Cache(**arguments)
    assert str(raised.value).startswith(message)


def test_a_directory_that_cannot_be_made_is_heard_of_at_once(tmp_path):
    (tmp_path / "file").touch()
    cache = Cache(directory=tmp_path / "file", directory_bytes=100)
    with pytest.raises(OSError, match="file"):
        EchoingPyDataset(Source(), cache=cache)
