"""What the assertion for users' own tests finds, and what it says."""

import itertools

import keras
import numpy as np
import pytest

from keras_echo import EchoingPyDataset
from keras_echo.testing import assert_resumes_exactly


class Batches(keras.utils.PyDataset):
    def __init__(self, change=lambda batch, index: batch):
        super().__init__()
        self.change = change

    def __len__(self):
        return 5

    def __getitem__(self, index):
        x = {"a": np.full((2, 3), index, "float32"), "b": np.array([["x"], ["y"]])}
        return self.change((x, np.full(2, np.nan)), index)


def maker(change=lambda batch, index: batch, **options):
    return lambda: EchoingPyDataset(Batches(change), seed=1, **options)


def test_what_resumes_exactly_passes():
    assert_resumes_exactly(maker(), steps=12)
    assert_resumes_exactly(maker(echo_factor=2.5), steps=30, every=7, compared=3)


def said_of(make_dataset, **options):
    with pytest.raises(AssertionError) as caught:
        assert_resumes_exactly(make_dataset, **{"steps": 6, "every": 2, "compared": 2, **options})
    return str(caught.value)


def of_one_dataset_in_two(change):
    """A source that is as it should be in the first dataset that is built, and not in others."""
    built = itertools.count()
    return lambda: maker(change if next(built) else lambda batch, index: batch, shuffle=False)()


def changed(function):
    """What is done from the second pass on, in the batch of index 3, counted from 0."""

    def change(batch, index):
        return function(*batch) if index == 3 else batch

    return of_one_dataset_in_two(change)


REMEDY = (
    "Seed all that is random in the source and in augment=, draw it anew from the index or give it "
    "get_state() and set_state(), and pass seed= to the dataset."
)
PLACE = "Batch 3 of training that was resumed after step 2 must "


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            lambda x, y: ({**x, "a": x["a"] + np.float32([0, 1, 1])}, y),
            "be the same at [0]['a']. Received: '4 of 6 values are others'.",
        ),
        (lambda x, y: (x, y[:1]), "be float64[2] at [1]. Received: 'float64[1]'."),
        (lambda x, y: (x, -y), "be the same at [1]. Received: '2 of 2 values are others'."),
    ],
)
def test_it_says_where_they_differ(function, said):
    assert said_of(changed(function)) == f"{PLACE}{said} {REMEDY}"


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            lambda x, y: ({**x, "a": x["a"] + [0, 1, 1]}, y),
            "be float32[2, 3] at [0]['a']. Received: 'float64[2, 3]'.",
        ),
        (
            lambda x, y: (x["a"], y),
            "have leaves at [(0, 'a'), (0, 'b'), (1,)]. Received: [(0,), (1,)].",
        ),
    ],
)
def test_it_says_how_all_of_them_differ(function, said):
    make_dataset = of_one_dataset_in_two(lambda batch, index: function(*batch))
    place = "Batch 2 of training that was resumed after step 2 must "
    assert said_of(make_dataset) == f"{place}{said} {REMEDY}"


def test_objects_are_compared_by_value():
    def with_objects(x, y, last=2):
        return x, np.array([{"n": 1}, {"n": last}])

    assert_resumes_exactly(maker(lambda batch, index: with_objects(*batch)), steps=3)
    built = itertools.count()

    def make_dataset():
        last = next(built)
        return maker(lambda batch, index: with_objects(*batch, last))()

    said = said_of(make_dataset)
    assert "be the same at [1]. Received: '1 of 2 values are others'." in said


def test_a_stream_of_random_numbers_is_found():
    rng = np.random.default_rng(1)
    said = said_of(maker(lambda batch, index: (rng.random((2, 1)), batch[1])))
    assert said.startswith("Batch 2 of training that was resumed after step 2 must be the same at")


@pytest.mark.parametrize("name", ["steps", "every", "compared"])
def test_counts_are_at_least_1(name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        assert_resumes_exactly(maker(), **{"steps": 1, name: 0})
