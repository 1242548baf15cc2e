"""While no fresh batch is there, what is there is used again, up to `max_uses` times."""

import json
import threading
from collections import Counter

import keras
import numpy as np
import pytest

from keras_echo import EchoFactor, EchoingPyDataset


class Gated(keras.utils.PyDataset):
    """Batch i is full of i; from batch `closed_at` on, reads wait until the gate is opened."""

    def __init__(self, closed_at, length=12):
        super().__init__(max_queue_size=4)
        self.closed_at, self.length = closed_at, length
        self.gate = threading.Event()

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index >= self.closed_at:
            assert self.gate.wait(60)
        x = np.full((4, 1), index, "float32")
        return x, np.zeros((4, 1), "float32")


def wrapped(source, **options):
    defaults = {
        "echo_factor": 2,
        "shuffle": False,
        "shuffle_buffer": 0,
        "seed": 1,
        "steps_per_epoch": 40,
    }
    return EchoingPyDataset(source, **{**defaults, **options})


def numbers(batch):
    return [int(number) for number in keras.ops.convert_to_numpy(batch[0])[:, 0]]


def first(dataset):
    return numbers(dataset[5])[0]


def in_place(batch):
    batch[0][:] += 0.25  # must not be seen by the next use
    return batch


@pytest.mark.parametrize(
    "options",
    [{"placement": "host"}, {}, {"augment": in_place}, {"augment": in_place, "workers": 2}],
    ids=["host", "auto", "augmented", "two threads"],
)
def test_a_batch_is_used_until_a_fresh_one_comes_or_max_uses(options):
    source = Gated(closed_at=2)
    with wrapped(source, max_uses=5, **options) as dataset:
        assert not dataset._feed.fill(3, 0.1)  # both lie ready
        served = [first(dataset) for _ in range(10)]
        assert served == [0, 0, 1, 1, 0, 1, 0, 1, 0, 1]
        waiting = threading.Thread(target=lambda: served.append(first(dataset)))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        source.gate.set()
        waiting.join(60)
        assert served[10:] == [2]
        assert dataset.stats().extra_uses == 6
        assert dataset.stats().steps == 11
        assert dataset.stats().fresh_batches == 3
        x = keras.ops.convert_to_numpy(dataset[5][0])
        assert set(x.ravel()) <= {2.0, 2.25}


@pytest.mark.parametrize(
    ("echo", "shuffle_buffer"),
    [
        *(("batch", size) for size in (0, 3, "auto")),
        *(("example", size) for size in (0, 12, "auto")),
    ],
)
def test_a_state_from_within_a_gap_is_exact(echo, shuffle_buffer):
    options = {"echo": echo, "shuffle_buffer": shuffle_buffer}
    source, other = Gated(closed_at=6), Gated(closed_at=99)
    with wrapped(source, max_uses=6, **options) as dataset, wrapped(other, **options) as resumed:
        for _ in range(60):
            numbers(dataset[5])
            if dataset.stats().extra_uses == 4:
                break
        assert dataset.stats().extra_uses == 4
        state = json.loads(json.dumps(dataset.state_dict()))
        source.gate.set()
        dataset.max_uses = None
        assert dataset._feed.fill(1, 10)  # a use that is being made still knows the old one
        expected = [numbers(dataset[5]) for _ in range(12)]
        resumed.load_state_dict(state)
        assert [numbers(resumed[5]) for _ in range(12)] == expected
        assert resumed.stats().extra_uses == 4


def test_examples_are_used_no_more_than_max_uses_and_none_is_left_out():
    source = Gated(closed_at=8, length=16)
    uses = Counter()
    with wrapped(source, echo="example", max_uses=7, shuffle_buffer=16) as dataset:
        while dataset.stats().extra_uses < 5:
            uses.update(numbers(dataset[5]))
        source.gate.set()
        dataset.max_uses = None
        while dataset.stats().passes < 2:
            uses.update(numbers(dataset[5]))
        extra = dataset.stats().extra_uses
    assert 5 <= extra <= 7  # two are made ahead
    assert all(8 <= uses[number] <= 28 + 12 for number in range(16))  # 4 examples, two passes


@pytest.mark.parametrize(
    ("echo", "factor", "num_needed"),
    [
        ("batch", 1, 1),
        ("batch", 1.5, 2),
        ("batch", 4, 1),
        ("example", 1, 1),
        ("example", 4, 2),  # to see how large batches are
    ],
)
def test_the_first_step_waits_for_no_full_shuffle_buffer(echo, factor, num_needed):
    source = Gated(closed_at=num_needed)
    with wrapped(source, echo=echo, echo_factor=factor, shuffle_buffer="auto") as dataset:
        assert numbers(dataset[5]) in ([0] * 4, [num_needed - 1] * 4)
        source.gate.set()


def test_without_max_uses_training_waits():
    source = Gated(closed_at=1)
    with wrapped(source) as dataset:
        assert [first(dataset) for _ in range(2)] == [0, 0]
        waiting = threading.Thread(target=lambda: first(dataset))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        source.gate.set()
        waiting.join(60)
        assert dataset.stats().extra_uses == 0


@pytest.mark.parametrize("echo", ["batch", "example"])
def test_fit_goes_on_through_an_outage(echo):
    """The source delivers again only when training has gone on for long without it."""
    source = Gated(closed_at=4)

    class Opens(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 25:
                source.gate.set()

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with wrapped(source, echo=echo, shuffle_buffer=8 * (echo == "example"), max_uses=64) as dataset:
        model.fit(dataset, verbose=0, callbacks=[Opens()])
        assert dataset.stats().extra_uses >= 8
        assert dataset.stats().steps == 40


def test_at_factor_one_short_waits_change_nothing(numbered):
    with wrapped(numbered(9), echo_factor=1, max_uses=8) as dataset:
        assert [first(dataset) for _ in range(30)] == [index % 9 for index in range(30)]
        assert dataset.stats().extra_uses == 0


@pytest.mark.parametrize("least", [None, 1, 2])
def test_while_readers_have_no_room_batches_make_room(least, numbered):
    factor = EchoFactor(4.0, min_uses=least)
    with wrapped(numbered(99, max_queue_size=6), echo_factor=factor) as dataset:
        served = [first(dataset)]
        for _ in range(30):
            assert dataset._feed.fill(6, 10)
            served.append(first(dataset))
    assert served == [use // (least or 4) for use in range(31)]


def test_the_factor_carries_it():
    factor = EchoFactor(2.0, max_uses=4)
    with EchoingPyDataset(Gated(9), echo_factor=factor) as dataset:
        assert dataset.max_uses == factor.max_uses == 4
        dataset.max_uses = None
        assert factor.max_uses is None
    with pytest.raises(ValueError, match="max_uses must be finite and at least 1"):
        EchoingPyDataset(Gated(9), max_uses=0.5)
    with pytest.raises(TypeError, match="max_uses must be a real number"):
        factor.max_uses = "8"
    with pytest.raises(ValueError, match="min_uses must be finite and at least 1"):
        EchoFactor(2.0, min_uses=0)


def test_a_peek_uses_nothing_again():
    source = Gated(closed_at=1)
    with wrapped(source, max_uses=32) as dataset:
        opens = threading.Timer(0.2, source.gate.set)
        opens.start()
        with dataset._feed._lock:
            assert dataset._feed._peek(1).output is not dataset._feed._peek(0).output
        assert dataset.stats().extra_uses == 0
        assert [first(dataset) for _ in range(4)] == [0, 0, 1, 1]
        opens.join()
