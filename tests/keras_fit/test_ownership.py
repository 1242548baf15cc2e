"""What a source returns is the source's, and no use of a batch sees what was done to another."""

import functools
import gc
import threading
import weakref

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_echo import EchoingPyDataset

LENGTH, ROWS = 6, 3


def data():
    """Batch i holds i in every row."""
    return np.repeat(np.arange(LENGTH, dtype="float32"), ROWS)[:, None] * np.ones((1, 2), "float32")


class Fresh(keras.utils.PyDataset):
    """Makes every batch anew."""

    def __init__(self):
        super().__init__()
        self.kept = data()

    def __len__(self):
        return LENGTH

    def rows(self, index):
        return slice(index * ROWS, (index + 1) * ROWS)

    def __getitem__(self, index):
        return self.kept[self.rows(index)].copy(), np.full((ROWS, 1), index, "float32")


class Views(Fresh):
    def __getitem__(self, index):
        return self.kept[self.rows(index)], np.full((ROWS, 1), index, "float32")


class Cached(Fresh):
    def __init__(self):
        super().__init__()
        self.cache = {}

    def __getitem__(self, index):
        if index not in self.cache:
            self.cache[index] = super().__getitem__(index)
        return self.cache[index]


class Refilled(Fresh):
    """Fills one buffer for its batches, and another one for every second of its labels."""

    def __init__(self):
        super().__init__()
        self.x = np.zeros((ROWS, 2), "float32")
        self.y = [np.zeros((ROWS, 1), "float32") for _ in range(2)]

    def __getitem__(self, index):
        y = self.y[index % 2]
        self.x[:] = index
        y[:] = index
        return self.x, y


class ReadOnly(Fresh):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        x.flags.writeable = y.flags.writeable = False
        return x, y


class Tensors(Views):
    """Of the backend, and on PyTorch views of one tensor."""

    def __init__(self):
        super().__init__()
        self.tensor = keras.ops.convert_to_tensor(self.kept)

    def __getitem__(self, index):
        _, y = super().__getitem__(index)
        return self.tensor[self.rows(index)], keras.ops.convert_to_tensor(y)


def generator():
    """A source in sequence, whose variables hold what it has yielded."""

    def batches():
        source = Refilled()
        for index in range(LENGTH):
            yield source[index]

    return batches


KINDS = {
    "fresh": Fresh,
    "views": Views,
    "cached": Cached,
    "refilled": Refilled,
    "read-only": ReadOnly,
    "tensors": Tensors,
    "generator": generator,
}


def add_in_place(batch):
    x, y = batch
    if isinstance(x, np.ndarray):
        x += 1000
        return x, y
    return x + 1000, y


def served(source, num_batches, **arguments):
    """The values of the next batches, as (num_batches, rows) for x and y; and what they held.

    All batches are kept to the end: a use that shares memory with a later one would show it.
    """
    with EchoingPyDataset(
        source, shuffle=False, steps_per_epoch=num_batches, seed=3, workers=1, **arguments
    ) as dataset:
        dataset.on_epoch_begin()
        batches = [dataset[index] for index in range(num_batches)]
        values = [[keras.ops.convert_to_numpy(part) for part in batch] for batch in batches]
    return [[part[:, 0].tolist() for part in batch] for batch in values]


@functools.cache
def expected(echo, factor, placement, augments, num_batches):
    return served(
        Fresh(),
        num_batches,
        echo=echo,
        echo_factor=factor,
        placement=placement,
        augment=add_in_place if augments else None,
    )


@settings(max_examples=40)
@given(
    kind=st.sampled_from(sorted(set(KINDS) - {"fresh"})),
    echo=st.sampled_from(["batch", "example"]),
    factor=st.sampled_from([1.0, 1.5, 2.5, 4.0]),
    placement=st.sampled_from(["auto", "host", "device"]),
    augments=st.booleans(),
)
def test_a_source_may_keep_and_refill_its_memory(kind, echo, factor, placement, augments):
    placement = "host" if augments and placement == "device" else placement
    num_batches = 2 * LENGTH + 3  # into the third pass at factor 1
    source = KINDS[kind]()
    found = served(
        source,
        num_batches,
        echo=echo,
        echo_factor=factor,
        placement=placement,
        augment=add_in_place if augments else None,
    )
    assert found == expected(echo, factor, placement, augments, num_batches)
    if isinstance(source, Fresh):
        np.testing.assert_array_equal(source.kept, data())
    if isinstance(source, Cached):
        assert all((x == index).all() for index, (x, _) in source.cache.items())


def test_the_values_that_are_expected_are_those_of_the_source():
    for echo in "batch", "example":
        batches = expected(echo, 1.0, "auto", False, LENGTH + 2)
        assert [x[0] for x, _ in batches] == [*range(LENGTH), 0, 1]
        assert all(x == y == [x[0]] * ROWS for x, y in batches)
    batches = served(Fresh(), 10, echo_factor=2.5, shuffle_buffer=0)
    assert [x[0] for x, _ in batches] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]


def test_a_source_may_shuffle_its_arrays_in_place():
    """In its hook, while batches of the pass before still wait for their reuse."""

    class Shuffling(Views):
        def __init__(self):
            super().__init__()
            self.orders = []

        def __getitem__(self, index):
            x = self.kept[self.rows(index)]
            return x, x[:, :1]

        def on_epoch_end(self):
            blocks = self.kept.reshape(LENGTH, ROWS, 2)
            np.random.default_rng(len(self.orders)).shuffle(blocks)
            self.orders.append([int(value) for value in blocks[:, 0, 0]])

    source = Shuffling()
    found = served(source, 4 * LENGTH, echo_factor=2.0, shuffle_buffer=0)
    assert [int(x[0]) for x, _ in found] == np.repeat(np.concatenate(source.orders[:2]), 2).tolist()
    assert all(x == y for x, y in found)


def test_what_a_source_lets_go_of_is_not_copied():
    """After the first batch, which tells, an only use is the very object that was read."""
    made, lock = {}, threading.Lock()

    class Remembering(Fresh):
        def __getitem__(self, index):
            batch = super().__getitem__(index)
            with lock:
                made.setdefault(index, batch[0].__array_interface__["data"][0])
            return batch

    with EchoingPyDataset(Remembering(), shuffle=False, steps_per_epoch=LENGTH) as dataset:
        dataset.on_epoch_begin()
        batches = [dataset[index] for index in range(LENGTH)]
    places = [batch[0].__array_interface__["data"][0] for batch in batches]
    assert places[3:] == [made[index] for index in range(3, LENGTH)]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data's arrays")
def test_augment_may_change_what_tf_data_yields():
    import tensorflow as tf

    source = tf.data.Dataset.from_tensor_slices((data(), data()[:, :1])).batch(ROWS)
    found = served(source, LENGTH, augment=add_in_place)
    assert [x[0] for x, _ in found] == [1000.0 + index for index in range(LENGTH)]


@pytest.mark.parametrize("let_go", [EchoingPyDataset.close, None], ids=["close", "load"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"echo_factor": 2.5, "shuffle_buffer": 3},
        {"echo_factor": 2.5, "echo": "example"},
        {"echo_factor": 2.0, "augment": add_in_place},
    ],
    ids=["plain", "shuffled", "examples", "augmented"],
)
def test_closing_and_loading_let_go_of_what_was_read_ahead(let_go, arguments):
    read, lock = [], threading.Lock()

    class Watched(Fresh):
        def __getitem__(self, index):
            batch = super().__getitem__(index)
            with lock:
                read.append(weakref.ref(batch[0]))
            return batch

    def values(dataset, num_batches):
        return [
            keras.ops.convert_to_numpy(dataset[index][0])[:, 0].tolist()
            for index in range(num_batches)
        ]

    options = {"shuffle": False, "seed": 3, "steps_per_epoch": 20, **arguments}
    with EchoingPyDataset(Fresh(), **options) as dataset:
        dataset.on_epoch_begin()
        whole = values(dataset, 20)
    with EchoingPyDataset(Watched(), **options) as dataset:
        dataset.on_epoch_begin()
        assert values(dataset, 9) == whole[:9]
        if let_go is None:
            dataset.load_state_dict(dataset.state_dict())
        else:
            let_go(dataset)
        gc.collect()
        assert [reference for reference in read if reference() is not None] == []
        assert values(dataset, 11) == whole[9:]
