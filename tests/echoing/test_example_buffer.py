import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.echoing.example_buffer import ExampleBuffer, Held
from keras_echo.echoing.repetition import num_uses_due

factors = st.floats(1, 9) | st.sampled_from([1.0, 1.1, 4 / 3, 2.5, 8.0, math.nextafter(1, 2)])
seeds = st.integers(0, 2**31)
batch_sizes = st.integers(1, 9)
spares = st.integers(0, 40)  # how much larger than a batch the buffer is


class Stream:
    """Fills an `ExampleBuffer` with the numbers of the examples, in pieces, and draws from it."""

    def __init__(self, echo, capacity):
        self.echo = echo
        self.num_new = 0  # examples taken in for the last draw
        self.stored = np.full(capacity, -1)
        self.stored[echo.slots] = echo.held.numbers

    def draw(self, piece=7):
        self.echo.begin()
        before = self.echo.num_taken
        while missing := self.echo.num_missing:
            taken = min(piece, missing)
            first = self.echo.num_taken
            self.stored[self.echo.take(taken)] = np.arange(first, first + taken)
        self.num_new = self.echo.num_taken - before
        return self.stored[self.echo.draw()].tolist()


def stream(factor, batch_size, capacity, seed=0, **state):
    return Stream(ExampleBuffer(lambda: factor, batch_size, capacity, seed=seed, **state), capacity)


@given(factor=factors | st.floats(1, 1e300), first=st.integers(0, 2**40), num=st.integers(1, 300))
def test_the_uses_due_are_exact(factor, first, num):
    edges = [math.floor(k * Fraction(factor)) for k in range(first, first + num + 1)]
    numbers = np.arange(first, first + num)
    due = num_uses_due(numbers, factor)
    if factor < 2**53:
        assert due.tolist() == [after - before for before, after in itertools.pairwise(edges)]
        assert set(due.tolist()) <= {math.floor(factor), math.ceil(factor)}
    else:
        assert set(due.tolist()) == {factor}


@given(
    factor=factors,
    batch_size=batch_sizes,
    spare=spares,
    seed=seeds,
    num_steps=st.integers(1, 60),
    piece=st.integers(1, 20),
)
def test_every_example_is_used_as_often_as_due_but_for_what_is_held(
    factor, batch_size, spare, seed, num_steps, piece
):
    served = stream(factor, batch_size, batch_size + spare, seed)
    batches = [served.draw(piece) for _ in range(num_steps)]
    counts = Counter(number for batch in batches for number in batch)
    due = num_uses_due(np.arange(served.echo.num_taken), factor)
    held = dict(zip(*(part.tolist() for part in served.echo.held), strict=True))
    for number in range(served.echo.num_taken):
        if number in held:
            assert counts[number] == held[number] < due[number]
        else:
            assert counts[number] == due[number]
    assert len(held) <= batch_size + spare
    for batch in batches:  # no example twice, and in the order of the stream
        assert batch == sorted(set(batch))
        assert len(batch) == batch_size


@given(batch_size=batch_sizes, seed=seeds, num_steps=st.integers(1, 30))
def test_at_factor_one_a_buffer_of_a_batch_is_transparent(batch_size, seed, num_steps):
    served = stream(1.0, batch_size, batch_size, seed)
    batches = [served.draw() for _ in range(num_steps)]
    assert list(itertools.chain(*batches)) == list(range(batch_size * num_steps))


@given(chosen=st.lists(factors, min_size=1, max_size=60), batch_size=batch_sizes, spare=spares)
def test_with_a_changing_factor_nothing_is_skipped(chosen, batch_size, spare):
    changing = iter(chosen)
    capacity = batch_size + spare
    served = Stream(ExampleBuffer(lambda: next(changing), batch_size, capacity, seed=1), capacity)
    counts = Counter(number for _ in chosen for number in served.draw())
    held = set(served.echo.held.numbers.tolist())
    assert set(counts) | held == set(range(served.echo.num_taken))
    assert all(1 <= count <= math.ceil(max(chosen)) for count in counts.values())


def test_a_changed_factor_acts_on_what_is_held():
    factor = 8.0
    served = Stream(ExampleBuffer(lambda: factor, 4, 4, seed=0), 4)
    assert [served.draw() for _ in range(3)] == [[0, 1, 2, 3]] * 3
    factor = 1.0  # used three times already: that was enough, and leaves no debt
    assert [served.draw() for _ in range(2)] == [[4, 5, 6, 7], [8, 9, 10, 11]]
    factor = 1.5  # every other example is used twice
    assert [served.draw() for _ in range(2)] == [[12, 13, 14, 15], [13, 15, 16, 17]]


@given(
    chosen=st.lists(factors, min_size=1, max_size=60),
    batch_size=batch_sizes,
    spare=spares,
    seed=seeds,
)
def test_no_use_exceeds_the_factor_of_its_draw(chosen, batch_size, spare, seed):
    capacity, factor = batch_size + spare, 1.0
    served = Stream(ExampleBuffer(lambda: factor, batch_size, capacity, seed=seed), capacity)
    counts, left = Counter(), set()
    for factor in chosen:
        held = set(served.echo.held.numbers.tolist())
        for number in served.draw():
            counts[number] += 1
            assert number not in left
            assert counts[number] <= max(1, num_uses_due(np.array([number]), factor)[0])
        left |= held - set(served.echo.held.numbers.tolist())


@given(
    factor=factors,
    batch_size=batch_sizes,
    spare=spares,
    seed=seeds,
    before=st.integers(0, 30),
    after=st.integers(1, 30),
)
def test_goes_on_from_its_state(factor, batch_size, spare, seed, before, after):
    capacity = batch_size + spare
    one = stream(factor, batch_size, capacity, seed)
    whole = [one.draw() for _ in range(before + after)]
    first = stream(factor, batch_size, capacity, seed)
    assert [first.draw() for _ in range(before)] == whole[:before]
    echo = first.echo
    second = stream(
        factor,
        batch_size,
        capacity,
        seed,
        num_drawn=echo.num_drawn,
        num_taken=echo.num_taken,
        held=echo.held,
    )
    first.draw()  # a state that was taken doesn't change any more
    assert [second.draw() for _ in range(after)] == whole[before:]


@given(factor=factors, batch_size=batch_sizes, spare=spares, seed=seeds)
def test_no_draw_waits_for_a_full_buffer(factor, batch_size, spare, seed):
    capacity = batch_size + spare
    served = stream(factor, batch_size, capacity, seed)
    num_held = 0
    for _ in range(60):
        served.draw()
        room = capacity - num_held
        most = batch_size * (2 if factor == 1 else 1)
        assert served.num_new == min(room, most)
        num_held = len(served.echo.held.numbers)
    if factor in (1, 2, 8):  # by then it is full; by the smallest factor above 1 it takes longer
        assert num_held >= spare


def test_the_first_batch_that_is_drawn_is_the_stream_s_first():
    assert stream(1.5, 4, 32).draw() == [0, 1, 2, 3]


def test_draws_evenly():
    # 4,000 draws of 2 out of 10: a chi-squared of 30 with 9 degrees of freedom has probability
    # 4e-4; drawing without replacement makes it smaller still.
    full = {"num_taken": 10, "held": Held(np.arange(10), np.zeros(10, np.int64))}
    counts = Counter(
        number for seed in range(4000) for number in stream(1.0, 2, 10, seed, **full).draw()
    )
    assert sum((counts[number] - 800) ** 2 / 800 for number in range(10)) < 30


def test_draws_are_independent_of_each_other():
    # With a factor beyond all uses the same 400 are drawn from again and again. How many of the
    # lower half are among the 100 says nothing of the next draw: a correlation of 2,000 pairs
    # has a standard error of 0.022.
    served = stream(1e9, 100, 400, seed=3)
    for _ in range(4):
        served.draw()
    in_lower_half = [sum(number < 200 for number in served.draw()) for _ in range(2001)]
    assert abs(np.corrcoef(in_lower_half[:-1], in_lower_half[1:])[0, 1]) < 0.1


def test_copies_are_spread():
    # The uses of an example lie capacity / batch_size = 10 batches apart on average.
    served = stream(4.0, 10, 100, seed=0)
    steps = {}
    for step in range(1000):
        for number in served.draw():
            steps.setdefault(number, []).append(step)
    gaps = [np.diff(at) for at in steps.values() if len(at) == 4]
    assert np.mean(gaps) == pytest.approx(10, abs=0.5)
