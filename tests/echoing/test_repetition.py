import itertools
import math
from collections import Counter
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from keras_echo.echoing.repetition import NUM_KEPT, Echo, ShuffleBuffer, Use

factors = st.floats(1, 9) | st.sampled_from([1.0, 1.1, 4 / 3, 2.5, 8.0, math.nextafter(1, 2)])
seeds = st.integers(0, 2**31)


def numbers(start=0):
    return itertools.count(start)


def room_for(size):
    return lambda held: len(held) < size


def items(uses, num):
    return [use.item for use in itertools.islice(uses, num)]


@given(factor=factors, num_fresh=st.integers(1, 200))
def test_uses_are_floor_or_ceil_of_n_times_e(factor, num_fresh):
    uses = itertools.takewhile(lambda use: use.item < num_fresh, Echo(numbers(), lambda: factor))
    counts = Counter(use.item for use in uses)
    assert set(counts) == set(range(num_fresh))
    assert set(counts.values()) <= {math.floor(factor), math.ceil(factor)}
    assert counts.total() == math.floor(num_fresh * Fraction(factor))


@given(factor=factors, num_steps=st.integers(1, 200))
def test_copies_follow_each_other_in_upstream_order(factor, num_steps):
    served = items(Echo(numbers(), lambda: factor), num_steps)
    assert served == sorted(served)


@given(chosen=st.lists(factors, min_size=1, max_size=100))
def test_with_a_changing_factor_nothing_is_skipped(chosen):
    changing = iter(chosen)
    served = items(Echo(numbers(), lambda: next(changing)), len(chosen))
    assert [number for number, _ in itertools.groupby(served)] == list(range(served[-1] + 1))


def test_a_changed_factor_acts_at_the_next_use():
    factor = 8.0
    echo = Echo(numbers(), lambda: factor)
    assert items(echo, 3) == [0, 0, 0]
    factor = 1.0  # used three times already: that was enough, and leaves no debt
    assert items(echo, 4) == [1, 2, 3, 4]
    factor = 3.0
    assert items(echo, 6) == [5, 5, 5, 6, 6, 6]
    factor = 2.5
    assert items(echo, 8) == [7, 7, 8, 8, 8, 9, 9, 10]


@given(chosen=st.lists(factors, min_size=1, max_size=100))
def test_with_a_changing_factor_counts_are_exact(chosen):
    """A use is made if and only if the factor of its step allows for it, or it is the first one."""
    changing = iter(chosen)
    uses = list(itertools.islice(Echo(numbers(), lambda: next(changing)), len(chosen)))
    num_uses, is_last = Counter(), {}
    credit = Fraction(0)
    for use, factor in zip(uses, map(Fraction, chosen), strict=True):
        before = use.item - 1
        if num_uses[use.item]:
            assert num_uses[use.item] + 1 <= credit + factor
        elif use.item and not is_last[before]:  # a lowered factor ended it
            assert num_uses[before] + 1 > credit + factor
            credit = max(Fraction(0), credit + factor - num_uses[before])
        assert not is_last.get(use.item)  # what was handed out as its only use isn't served again
        num_uses[use.item] += 1
        is_last[use.item] = num_uses[use.item] + 1 > credit + factor
        assert use.is_only == (num_uses[use.item] == 1 and is_last[use.item])
        if is_last[use.item]:
            credit = max(Fraction(0), credit + factor - num_uses[use.item])


@given(chosen=st.lists(factors, min_size=2, max_size=60), data=st.data())
def test_echo_with_a_changing_factor_goes_on_from_its_state(chosen, data):
    before = data.draw(st.integers(1, len(chosen) - 1))
    whole_factors, first_factors, second_factors = iter(chosen), iter(chosen), iter(chosen[before:])
    whole = items(Echo(numbers(), lambda: next(whole_factors)), len(chosen))
    first = Echo(numbers(), lambda: next(first_factors))
    items(first, before)
    second = Echo(
        numbers(first.num_fresh - (first.num_uses > 0)),
        lambda: next(second_factors),
        credit=first.credit,
        num_uses=first.num_uses,
        num_fresh=first.num_fresh,
    )
    assert items(second, len(chosen) - before) == whole[before:]


@given(factor=factors, num_steps=st.integers(1, 100))
def test_is_only_says_whether_there_is_another_use(factor, num_steps):
    echo = Echo(numbers(), lambda: factor)
    uses = list(itertools.islice(echo, num_steps))
    last = uses[-1].item
    counts = Counter(use.item for use in uses)
    for use in uses:
        if use.item != last:
            assert use.is_only == (counts[use.item] == 1)


@given(chosen=st.lists(factors, min_size=1, max_size=100))
def test_the_uses_of_an_output_are_numbered_from_one(chosen):
    changing, num_uses = iter(chosen), Counter()
    for use in itertools.islice(Echo(numbers(), lambda: next(changing)), len(chosen)):
        num_uses[use.item] += 1
        assert use.number == num_uses[use.item]


@given(factor=factors, before=st.integers(0, 50), after=st.integers(1, 50))
def test_echo_goes_on_from_its_state(factor, before, after):
    whole = list(itertools.islice(Echo(numbers(), lambda: factor), before + after))
    first = Echo(numbers(), lambda: factor)
    items(first, before)
    start = first.num_fresh - (first.num_uses > 0)
    second = Echo(
        numbers(start),
        lambda: factor,
        credit=first.credit,
        num_uses=first.num_uses,
        num_fresh=first.num_fresh,
    )
    # Whether it is the only use is known within one stream alone.
    rest = [(use.item, use.number) for use in itertools.islice(second, after)]
    assert rest == [(use.item, use.number) for use in whole[before:]]
    assert second.num_fresh == len({use.item for use in whole})


@given(size=st.integers(0, 20), seed=seeds, num_steps=st.integers(1, 100))
def test_shuffle_serves_all_but_what_it_holds(size, seed, num_steps):
    buffer = ShuffleBuffer(numbers(), room_for(size), seed=seed)
    served = []
    for step in range(1, num_steps + 1):  # it fills by one a step
        served.append(next(buffer))
        assert sorted((*served, *buffer.held)) == list(range(step + min(step, max(size, 1) - 1)))
    if size <= 1:
        assert served == list(range(num_steps))


@given(size=st.integers(0, 20), seed=seeds, before=st.integers(0, 50), after=st.integers(1, 50))
def test_shuffle_goes_on_from_its_state(size, seed, before, after):
    room = room_for(size)
    whole = list(itertools.islice(ShuffleBuffer(numbers(), room, seed=seed), before + after))
    first = ShuffleBuffer(numbers(), room, seed=seed)
    assert list(itertools.islice(first, before)) == whole[:before]
    second = ShuffleBuffer(
        numbers(before + len(first.held)),
        room,
        seed=seed,
        num_drawn=first.num_drawn,
        held=first.held,
    )
    assert list(itertools.islice(second, after)) == whole[before:]


@given(seed=seeds, rooms=st.lists(st.integers(0, 20), min_size=1, max_size=100))
def test_where_there_is_no_room_what_is_held_is_served_and_then_the_stream(seed, rooms):
    size = 0
    buffer = ShuffleBuffer(numbers(), lambda held: len(held) < size, seed=seed)
    served = []
    for size in rooms:
        held = buffer.held
        served.append(next(buffer))
        if len(held) >= size:
            assert served[-1] in (held or (len(served) - 1,))
            assert len(buffer.held) == max(len(held) - 1, 0)
        else:
            assert len(buffer.held) == min(len(held) + 1, max(size - 1, 0))
    assert sorted((*served, *buffer.held)) == list(range(len(rooms) + len(buffer.held)))


def test_shuffle_draws_evenly():
    # 4,000 draws of the first element out of 10: a chi-squared of 30 has probability 4e-4.
    full = {"held": tuple(range(10))}
    firsts = Counter(
        next(ShuffleBuffer(numbers(), room_for(10), seed=seed, **full)) for seed in range(4000)
    )
    assert sum((firsts[place] - 400) ** 2 / 400 for place in range(10)) < 30


def test_echoed_copies_are_spread_by_the_buffer():
    echoed = ShuffleBuffer(Echo(numbers(), lambda: 4.0), room_for(100), seed=0)
    served = items(echoed, 4000)
    in_a_row = sum(left == right for left, right in itertools.pairwise(served))
    assert in_a_row < 0.05 * len(served)  # without a buffer, three of four


class ScriptedGap:
    """Open, and full, when the scripts say so; neither at their ends."""

    def __init__(self, max_uses=None, script=(), min_uses=None, full=()):
        self.max_uses, self.min_uses = max_uses, min_uses
        self._script, self._full = iter(script), iter(full)

    def is_open(self):
        return next(self._script, False)

    def is_full(self):
        return next(self._full, False)


SCRIPTS = st.lists(st.booleans(), max_size=40)


@given(factor=st.floats(1, 4), max_uses=st.integers(1, 7), script=SCRIPTS)
def test_in_a_gap_kept_outputs_are_used_again_and_nobody_is_owed_less(factor, max_uses, script):
    gap = ScriptedGap(max_uses, script)
    echo = Echo(itertools.count(), lambda: factor, gap)
    plain = Echo(itertools.count(), lambda: factor)
    uses = [next(echo) for _ in range(80)]
    num_uses = Counter(use.item for use in uses)
    last = max(use.item for use in uses)
    owed = Counter(use.item for use in itertools.takewhile(lambda use: use.item < last, plain))
    assert not any(use.is_only for use in uses)  # any may be used again
    newest = 0
    for use in uses:
        newest = max(newest, use.item)
        assert use.item > newest - NUM_KEPT
    for item, num in owed.items():
        assert num <= num_uses[item] <= max(num, max_uses)
    num_extra = sum(num_uses[item] - num for item, num in owed.items())
    assert 0 <= num_extra <= echo.num_extra <= sum(script)


def test_in_a_gap_the_least_used_comes_first():
    gap = ScriptedGap(4, [False] * 5 + [True] * 20)
    echo = Echo(itertools.count(), lambda: 2.0, gap)
    uses = [next(echo) for _ in range(20)]
    served = [use.item for use in uses]
    assert served[:12] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert served[12:] == [2, 3, 4, 5] * 2  # up to four uses of each
    assert [use.number for use in uses] == [1, 2] * 6 + [3] * 4 + [4] * 4
    assert next(echo).item == 6


@given(factor=st.floats(1, 4), min_uses=st.floats(1, 3), full=SCRIPTS)
def test_where_upstream_is_full_an_output_makes_room_and_nobody_is_owed_more(
    factor, min_uses, full
):
    echo = Echo(itertools.count(), lambda: factor, ScriptedGap(min_uses=min_uses, full=full))
    items = [next(echo).item for _ in range(80)]
    assert items == sorted(items)
    num_uses = Counter(items)
    for item in range(items[-1]):
        assert min(math.floor(factor), math.ceil(min_uses)) <= num_uses[item] <= factor + 1
    assert 0 <= echo.credit < 1
    if not any(full):
        plain = Echo(itertools.count(), lambda: factor)
        assert items == [next(plain).item for _ in items]


def test_without_max_uses_and_min_uses_nobody_asks():
    class Unasked(ScriptedGap):
        def is_open(self):
            raise AssertionError

        is_full = is_open

    echo = Echo(itertools.count(), lambda: 1.0, Unasked())
    assert [next(echo) for _ in range(3)] == [Use(number, True, 1) for number in range(3)]
