"""Sources that change themselves in on_epoch_begin and on_epoch_end."""

import json
import warnings

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_echo import EchoingPyDataset
from keras_echo.dataset import probe_of

LENGTH = 6


class Shuffling(keras.utils.PyDataset):
    """Shuffles itself at each end of an epoch and rotates at each begin; records all calls."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.rng = np.random.default_rng(5)
        self.order = np.arange(LENGTH)
        self.calls = []
        self.fails_at = None

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        if self.order[index] == self.fails_at:
            self.fails_at = None
            raise OSError("disk gone")
        self.calls.append(int(self.order[index]))
        x = np.full((2, 1), self.order[index], "float32")
        return x, np.zeros((2, 1), "float32")

    def on_epoch_end(self):
        self.calls.append("E")
        self.rng.shuffle(self.order)

    def on_epoch_begin(self):
        self.calls.append("B")
        self.order = np.roll(self.order, 1)


def wrapped(source=None, **options):
    return EchoingPyDataset(source or Shuffling(), **{"shuffle": False, **options})


def firsts(dataset, num):
    return [int(dataset[0][0][0, 0]) for _ in range(num)]


def whole(num_passes, **options):
    with wrapped(**options) as dataset:
        return firsts(dataset, num_passes * LENGTH)


@pytest.mark.parametrize("workers", [1, 3])
def test_at_factor_1_it_is_as_in_plain_fit(recorder, workers):
    def trained_on(data):
        model = recorder()
        # With metrics that aren't built yet, Keras begins an epoch only to look at a batch.
        model.fit(np.zeros((2, 1)), np.zeros((2, 1)), verbose=0)
        model.fit(data, epochs=3, shuffle=False, verbose=0)
        return model.trained_on()[1:]

    plain, told = Shuffling(), Shuffling(workers=workers)
    with wrapped(told) as dataset:
        assert trained_on(dataset) == trained_on(plain)
    # Keras reads two batches before all hooks on TensorFlow, for their shapes.
    hooks = [[call for call in source.calls if call in ("E", "B")] for source in (plain, told)]
    assert hooks[0] == [*"EBEBEB", "E"]
    assert hooks[1] == [*"EBEBEB"]  # the last pass isn't over before the next one is asked for
    if workers == 1:
        calls = plain.calls[plain.calls.index("E") :]
        assert told.calls == calls[:-1]


@settings(max_examples=20)
@given(
    workers=st.integers(1, 3),
    queue=st.integers(1, 12),
    stop=st.integers(2, 3 * LENGTH + 1),
    factor=st.sampled_from([1.0, 2.5]),
)
def test_loading_the_state_of_now_changes_nothing(workers, queue, stop, factor):
    # What a shuffle buffer held of a pass before would be read again, with another order.
    options = {"echo_factor": factor, "shuffle_buffer": 0}
    with (
        wrapped(workers=workers, max_queue_size=queue, **options) as dataset,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        served = firsts(dataset, stop)
        dataset.load_state_dict(json.loads(json.dumps(dataset.state_dict())))
        served += firsts(dataset, 4 * LENGTH - stop)
    assert served == whole(4, **options)


@pytest.mark.parametrize("fails_at", [0, 3, 5])
def test_a_failed_read_calls_no_hook(fails_at):
    source = Shuffling(max_queue_size=4)
    with wrapped(source) as dataset:
        served = firsts(dataset, LENGTH)
        source.fails_at = fails_at
        while len(served) < 3 * LENGTH:
            try:
                served += firsts(dataset, 1)
            except OSError:
                assert not source.fails_at
    assert served == whole(3)


@settings(max_examples=20)
@given(
    stop=st.integers(2, 4 * LENGTH),
    options=st.sampled_from(
        [{}, {"echo_factor": 2.5}, {"shuffle_buffer": 4, "seed": 1}, {"echo": "example", "seed": 1}]
    ),
)
def test_a_new_process_resumes_in_any_pass(stop, options):
    with wrapped(**options) as dataset:
        firsts(dataset, stop)
        state = dataset.state_dict()
        expected = firsts(dataset, 12)
    with wrapped(**options) as dataset, warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset.load_state_dict(state)
        assert firsts(dataset, 12) == expected


def test_going_back_is_warned_of_once():
    with wrapped() as dataset:
        firsts(dataset, 3)
        state = dataset.state_dict()
        firsts(dataset, 2 * LENGTH)
        for _ in range(2):
            dataset.load_state_dict(state)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                firsts(dataset, 1)
            state_of_now = [str(one.message) for one in caught]
            if _ == 0:
                assert len(state_of_now) == 1
                assert "Batches of pass 0 are read again" in state_of_now[0]
                assert "pass shuffle=True" in state_of_now[0]
                firsts(dataset, 2 * LENGTH)
            else:
                assert state_of_now == []


def test_waiting_at_the_end_of_a_pass_keeps_no_reader():
    source = Shuffling()
    with wrapped(source) as dataset:
        firsts(dataset, LENGTH)
        assert not probe_of(dataset).fill(
            2, 60
        )  # at once: a pass isn't begun before it is asked for
        assert source.calls[-1] != "B"
        assert source.calls.count("E") == 1
        firsts(dataset, 1)
        assert source.calls.count("E") == 2
