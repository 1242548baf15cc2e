"""Sequences of iterators as Keras 3.15.1 makes them; tests/keras_fit makes it make them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.serving.iterator_peeks import Iteration, IteratorPeeks, Peeks

TF_DATA = Peeks(most_in_a_row=1, most_elements=4)
GRAIN = Peeks(most_in_a_row=2, most_elements=2)


class Stream:
    """A stream of numbers, of which what comes again comes first."""

    def __init__(self, advance):
        self._advance, self._again = advance, []
        self.iterations = IteratorPeeks(self._put_back)

    def _put_back(self, numbers):
        self._again = [*numbers, *self._again]

    def serve(self, iteration):
        """The next number, and whether it may come again; None where the iteration is over."""
        may_return = self.iterations.may_return(iteration)
        if may_return is None:
            return None
        try:
            number = self._again.pop(0) if self._again else self._advance()
        except OSError:
            self.iterations.trains()
            raise
        self.iterations.took(iteration, number)
        return number, may_return


def play(peeks, length, *nums):
    """What is served to iterators that take `nums` elements, one after the other."""
    iterations = Stream(itertools.count().__next__)
    served = []
    for num in nums:
        iteration = Iteration(peeks, length)
        found = [iterations.serve(iteration) for _ in range(num)]
        served.append([None if one is None else one[0] for one in found])
    return served


@pytest.mark.parametrize(
    ("peeks", "length", "nums", "served"),
    [
        # tf.data, an epoch each, read to its end
        (TF_DATA, 5, (6, 6), [[0, 1, 2, 3, 4, None], [5, 6, 7, 8, 9, None]]),
        # with a look before it, however far that reads ahead
        (TF_DATA, 5, (1, 5, 5), [[0], [0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]),
        (TF_DATA, 5, (4, 5, 5), [[0, 1, 2, 3], [0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]),
        # and again in the next fit() of another model
        (TF_DATA, 5, (5, 2, 5), [[0, 1, 2, 3, 4], [5, 6], [5, 6, 7, 8, 9]]),
        # an epoch that was broken off behind more than a look reads goes on
        (TF_DATA, 9, (6, 9), [[*range(6)], [*range(6, 15)]]),
        # and so does any that follows a look, and fits of fewer steps than an epoch
        (TF_DATA, 9, (1, 3, 9), [[0], [0, 1, 2], [*range(3, 12)]]),
        (TF_DATA, 9, (1, 3, 3, 3), [[0], [0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        # Grain, a fit() each: two batches for the shapes, one to build, and then all epochs
        (GRAIN, None, (2, 1, 5, 2, 4), [[0, 1], [0], [0, 1, 2, 3, 4], [5, 6], [5, 6, 7, 8]]),
    ],
)
def test_serves_looks_again(peeks, length, nums, served):
    assert play(peeks, length, *nums) == served


def test_one_that_failed_was_no_look():
    fails = iter([False, False, True, False, False])
    numbers = itertools.count()

    def advance():
        if next(fails):
            raise OSError("disk gone")
        return next(numbers)

    iterations = Stream(advance)
    first, second = Iteration(TF_DATA, 5), Iteration(TF_DATA, 5)
    assert [iterations.serve(first)[0] for _ in range(2)] == [0, 1]
    with pytest.raises(OSError, match="disk gone"):
        iterations.serve(first)
    assert [iterations.serve(second)[0] for _ in range(2)] == [2, 3]


def test_a_new_one_ends_the_one_before():
    iterations = Stream(itertools.count().__next__)
    old, new = Iteration(TF_DATA, 9), Iteration(TF_DATA, 9)
    assert iterations.serve(old) == (0, True)
    assert iterations.serve(new) == (0, False)  # only one look in a row
    assert iterations.serve(old) is None
    assert iterations.serve(new) == (1, False)


@given(
    length=st.integers(5, 30),
    fits=st.lists(
        st.tuples(st.one_of(st.none(), st.integers(1, 4)), st.integers(1, 4)), max_size=8
    ),
)
def test_epochs_are_the_stream_whatever_looks_lie_between(length, fits):
    nums, trains = [], []
    for look, num_epochs in fits:
        if look is not None:
            nums.append(look)
            trains.append(False)
        nums += [length] * num_epochs
        trains += [True] * num_epochs
    served = play(TF_DATA, length, *nums)
    trained = [n for one, is_epoch in zip(served, trains, strict=True) if is_epoch for n in one]
    assert trained == [*range(len(trained))]


@given(st.lists(st.tuples(st.booleans(), st.integers(3, 9)), max_size=8))
def test_fits_on_grain_are_the_stream(fits):
    nums, trains = [], []
    for is_built, num_steps in fits:
        peeks = [2] if is_built else [2, 1]
        nums += [*peeks, num_steps]
        trains += [False] * len(peeks) + [True]
    served = play(GRAIN, None, *nums)
    trained = [n for one, is_fit in zip(served, trains, strict=True) if is_fit for n in one]
    assert trained == [*range(len(trained))]
