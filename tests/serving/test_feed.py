"""Where the stream stands, whatever comes between two batches."""

import gc
import json
import weakref

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_echo import EchoingPyDataset
from keras_echo.serving.iterator_peeks import Peeks


class Numbered(keras.utils.PyDataset):
    def __len__(self):
        return 7

    def __getitem__(self, index):
        x = np.full((2, 1), index, "float32")
        return x, x


def made(**options):
    return EchoingPyDataset(Numbered(), seed=1, steps_per_epoch=10, **options)


def number(batch):
    return int(keras.ops.convert_to_numpy(batch[0])[0, 0])


WHAT_MAY_COME_BETWEEN = ["close", "save and load", "fail to hand out", "peek", "iterate"]


@settings(max_examples=40)
@given(
    between=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(WHAT_MAY_COME_BETWEEN)), max_size=6
    ),
    options=st.sampled_from([{}, {"echo_factor": 2.5}, {"echo_factor": 1.5, "shuffle_buffer": 3}]),
)
def test_every_use_is_served_once_and_in_order(between, options):
    def fail(batch):
        raise MemoryError

    with made(**options) as whole, made(**options) as broken:
        expected = [number(whole[5]) for _ in range(60)]
        served = []
        for num, what in between:
            served += [number(broken[5]) for _ in range(num)]
            match what:
                case "close":
                    broken.close()
                case "save and load":
                    broken.load_state_dict(json.loads(json.dumps(broken.state_dict())))
                case "fail to hand out":
                    with pytest.raises(MemoryError):
                        broken._feed.serve(5, fail)
                case "peek":
                    assert number(broken._feed.first()) == expected[len(served)]
                case "iterate":
                    batches = broken._feed.iterate(Peeks(most_in_a_row=0, most_elements=0))
                    served.append(number(next(batches)))
            assert broken.stats().steps == len(served)
        served += [number(broken[5]) for _ in range(9)]
    assert served == expected[: len(served)]


def test_after_closing_nothing_refers_to_what_was_read():
    class Watched(np.ndarray):
        pass

    watched = []

    class Source(Numbered):
        def __getitem__(self, index):
            x = np.ones((2, 1), "float32").view(Watched)
            watched.append(weakref.ref(x))
            return x, np.ones((2, 1), "float32")

    gc.disable()  # what lies in a cycle would stay for long
    try:
        dataset = EchoingPyDataset(Source(), echo_factor=2, shuffle_buffer=3)
        for _ in range(5):
            dataset[5]
        assert any(array() is not None for array in watched)
        dataset.close()
        assert all(array() is None for array in watched)
    finally:
        gc.enable()
