"""echo="example": what fit() trains on, on the backend of this process (KERAS_BACKEND)."""

import contextlib
import json
import math
from collections import Counter

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keras_echo import EchoFactor, EchoingPyDataset
from keras_echo.echoing.repetition import num_uses_due


def numbers(num):
    """As x and as y: examples that tell their numbers."""
    return np.arange(num, dtype="float32").reshape(-1, 1), np.arange(num).reshape(-1, 1)


class Unequal(keras.utils.PyDataset):
    """10 examples in batches of 4, 4 and 2; example i of the pass is i."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        x, y = numbers(10)
        rows = slice(4 * index, 4 * index + 4)
        return x[rows], y[rows]


def served(dataset, num):
    """The numbers in the next batches; x and y must agree."""
    batches = []
    for _ in range(num):
        x, y = map(keras.ops.convert_to_numpy, dataset[0])
        np.testing.assert_array_equal(x, y)
        batches.append(y[:, 0].tolist())
    return batches


def test_uses_are_exact_over_whole_passes():
    with EchoingPyDataset(
        Unequal(), echo="example", echo_factor=2.5, shuffle_buffer=12, shuffle=False, seed=1
    ) as dataset:
        counts = Counter(np.concatenate(served(dataset, 500)).tolist())
        held = dataset.state_dict()["echo"]
    # Of an example of each pass there were 2 or 3 uses, but for the 12 that are still held.
    due = num_uses_due(np.arange(held["num_taken"]), 2.5)
    assert (
        counts.total()
        == 2000
        == due.sum() - np.sum(due[np.cumsum(held["steps"])] - held["num_uses"])
    )
    for number in range(10):
        assert abs(counts[number] - due[number::10].sum()) <= 12 * 3
    assert set(counts) == set(range(10))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    "options", [{"echo_factor": 1.5}, {"shuffle_buffer": 0}, {"shuffle_buffer": 12}]
)
def test_batches_are_full_whatever_the_source_has(options, shuffle):
    with EchoingPyDataset(Unequal(), echo="example", shuffle=shuffle, seed=0, **options) as dataset:
        assert {len(batch) for batch in served(dataset, 20)} == {4}


def test_at_factor_one_batches_come_as_they_are():
    with EchoingPyDataset(Unequal(), echo="example", shuffle=False) as dataset:
        one_pass = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert served(dataset, 7) == [*one_pass, *one_pass, one_pass[0]]
        assert dataset.stats().fresh_batches == 7


def test_at_factor_one_and_without_shuffling_it_is_the_source():
    x, y = numbers(12)
    options = {"shuffle": False, "batch_size": 4}
    with (
        EchoingPyDataset(
            (x, y), echo="example", shuffle_buffer=1, placement="host", **options
        ) as dataset,
        EchoingPyDataset((x, y), **options) as plain,
    ):
        for _ in range(10):
            for got, wanted in zip(dataset[0], plain[0], strict=True):
                assert got.tobytes() == wanted.tobytes()
                assert got.dtype == wanted.dtype
    with EchoingPyDataset(
        Unequal(), echo="example", shuffle_buffer=1, shuffle=False
    ) as dataset:  # batches of one size, so that nothing of a short one is lost
        assert served(dataset, 5) == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9, 0, 1],
            [2, 3, 4, 5],
            [6, 7, 8, 9],
        ]


def num_held(dataset):
    return len(dataset.state_dict()["echo"]["num_uses"])


def test_by_default_up_to_eight_batches_are_held_while_they_are_echoed():
    with EchoingPyDataset(
        numbers(1000), echo="example", echo_factor=1e9, batch_size=5, seed=0
    ) as dataset:
        for step in range(12):  # no step waits for more than one batch
            served(dataset, 1)
            assert num_held(dataset) == 5 * min(step + 1, 8)
        dataset.echo_factor = 1.0
        served(dataset, 12)
        assert num_held(dataset) == 0


@settings(max_examples=25)
@given(
    factor=st.floats(1, 5),
    shuffle=st.booleans(),
    shuffle_buffer=st.sampled_from(["auto", 0, 1, 5, 23]),
    augments=st.booleans(),
    workers=st.integers(2, 4),
    seed=st.integers(0, 2**31),
    stop=st.integers(0, 20),
)
@example(1.90625, True, 5, False, 2, 1023, 7)  # the last batch is used up, an earlier one held
def test_same_seed_same_stream_whatever_the_workers_and_the_interruptions(
    factor, shuffle, shuffle_buffer, augments, workers, seed, stop
):
    def noisy(batch, rng):
        noise = rng.integers(1000)
        return batch[0] + noise, batch[1] + noise

    def dataset(workers, **kwargs):
        return EchoingPyDataset(
            Unequal(workers=workers),
            echo="example",
            echo_factor=factor,
            shuffle=shuffle,
            shuffle_buffer=shuffle_buffer,
            augment=noisy if augments else None,
            seed=seed,
        )

    with dataset(1) as one, dataset(workers) as many, dataset(1) as closed, dataset(1) as resumed:
        whole = served(one, 30)
        assert served(many, 30) == whole
        assert served(closed, stop) == whole[:stop]
        state = json.loads(json.dumps(closed.state_dict()))
        closed.close()
        assert served(closed, 30 - stop) == whole[stop:]
        resumed.echo_factor = 1.0
        resumed.load_state_dict(state)
        assert resumed.echo_factor == factor
        assert served(resumed, 30 - stop) == whole[stop:]
        assert resumed.state_dict() == one.state_dict()
        assert resumed.stats().steps == 30
        assert resumed.stats().fresh_batches == one.stats().fresh_batches


def test_a_sequence_resumes_in_the_middle_of_a_pass():
    def batches():
        source = Unequal()
        return (source[index] for index in range(3))

    def dataset():
        return EchoingPyDataset(
            batches, echo="example", echo_factor=1.5, shuffle_buffer=9, steps_per_epoch=3, seed=4
        )

    with dataset() as one, dataset() as other:
        whole = served(one, 30)
        served(other, 13)
        state = other.state_dict()
    with dataset() as resumed:
        resumed.load_state_dict(state)
        assert served(resumed, 17) == whole[13:]


def test_the_state_stays_small():
    with EchoingPyDataset(
        numbers(100_000), echo="example", echo_factor=4, shuffle_buffer=1024, seed=0
    ) as dataset:
        for _ in range(400):
            dataset[0]
        assert len(json.dumps(dataset.state_dict())) < 8 * 1024


@pytest.mark.parametrize("shuffle_buffer", [1, 12])
def test_fit_loses_nothing_and_goes_on(recorder, shuffle_buffer):
    model = recorder()
    with EchoingPyDataset(
        numbers(12),
        echo="example",
        echo_factor=2,
        shuffle_buffer=shuffle_buffer,
        batch_size=4,
        shuffle=False,
        seed=3,
    ) as dataset:
        state = dataset.state_dict()
        model.fit(dataset, epochs=3, verbose=0)
        model.fit(dataset, epochs=2, verbose=0)
        assert dataset.stats().steps == 15
        dataset.load_state_dict(state)
        assert model.trained_on() == [max(batch) for batch in served(dataset, 15)]


def test_the_factor_changes_at_any_time():
    factor = EchoFactor(1.0)
    with EchoingPyDataset(
        numbers(1000), echo="example", echo_factor=factor, batch_size=10, seed=3
    ) as dataset:
        served(dataset, 100)
        before = dataset.stats().fresh_batches
        factor.value = 4.0
        served(dataset, 400)
        between = dataset.stats().fresh_batches
        dataset.echo_factor = 1.0
        served(dataset, 100)
        after = dataset.stats().fresh_batches
    held = 8  # batches in the buffer, used or not
    assert 100 - held <= before <= 100
    assert 100 - held <= between - before <= 100 + held
    assert 100 - held <= after - between <= 100 + held


def test_copies_know_nothing_of_each_other():
    with EchoingPyDataset(
        numbers(40),
        echo="example",
        echo_factor=3,
        batch_size=4,
        shuffle_buffer=10,
        placement="host",
        seed=0,
    ) as dataset:
        for _ in range(60):
            x, y = dataset[0]
            assert np.array_equal(x, y)
            assert 0 <= x.min() <= x.max() < 40
            x[...] = -1
            y[...] = -1


def test_nested_structures_are_kept():
    x, y = numbers(12)
    arrays = ({"a": (x, x), "b": {"c": x, "d": None}}, {"out": y}, np.ones(12, "float32"))
    with EchoingPyDataset(arrays, echo="example", echo_factor=2, batch_size=4) as dataset:
        batch = dataset[0]
    keras.tree.assert_same_structure(batch, arrays)
    numbers_of = keras.ops.convert_to_numpy
    np.testing.assert_array_equal(numbers_of(batch[0]["b"]["c"]), numbers_of(batch[1]["out"]))


def test_tensors_become_arrays():
    x, y = numbers(8)

    class Tensors(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            rows = slice(4 * index, 4 * index + 4)
            return keras.ops.convert_to_tensor(x[rows]), keras.ops.convert_to_tensor(y[rows])

    with EchoingPyDataset(
        Tensors(), echo="example", echo_factor=2, placement="host", seed=0
    ) as dataset:
        assert len(set(sum(served(dataset, 20), []))) == 8  # noqa: RUF017
        assert isinstance(dataset[0][0], np.ndarray)


def test_batches_of_changing_shapes_are_refused():
    class Growing(keras.utils.PyDataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            return np.zeros((4, 1 + index)), np.zeros(4)

    with (
        EchoingPyDataset(Growing(), echo="example", echo_factor=2, shuffle=False) as dataset,
        pytest.raises(ValueError, match=r"^The examples of the source, for echo='example', must"),
    ):
        dataset[0]


def test_a_failing_read_can_be_tried_again():
    fails = [3]

    class Failing(Unequal):
        def __getitem__(self, index):
            if index == 2 and fails[0]:
                fails[0] -= 1
                raise OSError("disk gone")
            return super().__getitem__(index)

    with EchoingPyDataset(
        Failing(), echo="example", shuffle_buffer=1, shuffle=False, max_queue_size=1
    ) as dataset:
        got = []
        for _ in range(8):
            with contextlib.suppress(OSError):
                got += served(dataset, 1)
    assert got == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1], [2, 3, 4, 5], [6, 7, 8, 9]]


def test_failing_reads_can_be_skipped():
    class Failing(Unequal):
        def __getitem__(self, index):
            if index == 1:
                raise OSError("disk gone")
            return super().__getitem__(index)

    with EchoingPyDataset(
        Failing(), echo="example", shuffle_buffer=1, shuffle=False, on_error="skip"
    ) as dataset:
        with pytest.warns(RuntimeWarning, match="disk gone"):
            got = served(dataset, 3)
        assert got == [[0, 1, 2, 3], [8, 9, 0, 1], [2, 3, 8, 9]]
        assert dataset.stats().skipped_reads >= 2


def test_states_of_the_other_kind_of_echo_are_refused():
    with (
        EchoingPyDataset(numbers(8), echo="example") as examples,
        EchoingPyDataset(numbers(8)) as batches,
    ):
        for one, other, echo in ((examples, batches, "batch"), (batches, examples, "example")):
            one[0], one[1], one[2]  # the first two may be looks
            with pytest.raises(ValueError, match=rf"^state must come from .* echo='{echo}'"):
                other.load_state_dict(one.state_dict())


@pytest.mark.filterwarnings("ignore:Batch 0 of pass 0 of the source must be the one")
def test_a_source_that_changed_is_noticed_when_going_on():
    options = {"echo": "example", "echo_factor": 2, "seed": 0}
    with EchoingPyDataset(numbers(40), batch_size=8, **options) as dataset:
        dataset[0], dataset[1], dataset[2]
        state = dataset.state_dict()
    with EchoingPyDataset(numbers(40), batch_size=7, **options) as dataset:
        dataset.load_state_dict(state)
        with pytest.raises(ValueError, match=r"must have 8 examples, as before\. Received: 7\."):
            dataset[0]


def test_the_buffer_is_bounded_and_flat():
    """Every example is held once, however large the factor; nothing piles up."""
    with EchoingPyDataset(
        numbers(64), echo="example", echo_factor=7.3, batch_size=4, shuffle_buffer=32, seed=0
    ) as dataset:
        sizes = []
        for step in range(2000):
            dataset[0]
            if step % 100 == 99:
                state = dataset.state_dict()["echo"]
                sizes.append(len(state["num_uses"]))
                assert len(state["blocks"]) <= 32
        assert max(sizes) <= 32
        fresh = dataset.stats().fresh_batches
    assert math.isclose(fresh, 2000 / 7.3, abs_tol=8)
