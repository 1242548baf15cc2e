"""The default shuffle buffer: at work only while the factor is above 1, and never in the way."""

import itertools
import json
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_echo.echoing import batch_echo
from keras_echo.echoing.batch_echo import AUTO_BATCHES, BatchEchoing
from keras_echo.echoing.example_buffer import NOTHING_HELD
from keras_echo.echoing.example_echo import ExampleEchoing
from keras_echo.echoing.repetition import Echo, NoGap, num_uses_due
from keras_echo.echoing.state import State
from keras_echo.memory.placement import BatchPlacement, ExamplePlacement
from keras_echo.reading.stream import Fresh, Position

BATCH = BatchEchoing(BatchPlacement(), "auto")
EXAMPLE = ExampleEchoing(ExamplePlacement(), "auto")
DRAINED = [1.0] * 80  # steps after which nothing is held, whatever was

# Phases of one factor each, so that the buffer fills, stays full and is drained.
PHASES = st.lists(
    st.tuples(
        st.sampled_from([1.0, 1.5, 2.0, 4.0]) | st.floats(1, 6),
        st.integers(1, 25),
    ),
    min_size=1,
    max_size=6,
).map(lambda phases: [factor for factor, num in phases for _ in range(num)])
SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=5)  # of the batches, over and over


class Batches:
    """Fresh batches of consecutive numbers, from a state on."""

    def __init__(self, sizes, state):
        self.ends = [0, *itertools.accumulate(sizes)]
        self.held = iter(state.positions_held)
        self.ordinal = state.next_position.ordinal
        self.position = None
        self.num_read = 0

    def __iter__(self):
        return self

    def at(self, ordinal):
        num_passes, place = divmod(ordinal, len(self.ends) - 1)
        first = num_passes * self.ends[-1]
        return np.arange(first + self.ends[place], first + self.ends[place + 1])

    def __next__(self):
        self.position = Position(0, self.ordinal)
        self.ordinal += 1
        self.num_read += 1
        return Fresh(self.position, (self.at(self.position.ordinal),))

    def again(self):
        position = next(self.held)
        return Fresh(position, (self.at(position.ordinal),))


class Stream:
    """What an echo makes of these batches."""

    def __init__(self, echoing, sizes, state=State(seed=3)):  # noqa: B008
        self.batches = Batches(sizes, state)
        self.uses = echoing.start(self.batches, state, lambda: self.factor, NoGap())
        self.state = state

    def serve(self, factor):
        self.factor = factor
        self.use, self.position, self.state = next(self.uses)
        return self.use.item.use()[0].tolist()


def resumed(echoing, sizes, state, factors):
    saved = json.loads(json.dumps(state.as_json(1.0)))
    loaded = State.from_json(saved, echoing.kind, echoing.state_from_json)
    stream = Stream(echoing, sizes, loaded)
    return [(stream.serve(factor), stream.state.as_json(1.0)) for factor in factors]


@pytest.mark.parametrize("echoing", [BATCH, EXAMPLE], ids=["batch", "example"])
@settings(max_examples=25, deadline=None)
@given(factors=PHASES, sizes=SIZES, data=st.data())
def test_a_stream_goes_on_from_the_state_after_any_step(echoing, factors, sizes, data):
    factors = [*factors, *DRAINED[:20], 3.0, 3.0]
    stream = Stream(echoing, sizes)
    whole, states = [], []
    for factor in factors:
        whole.append((stream.serve(factor), stream.state.as_json(1.0)))
        states.append(stream.state)
    for step in sorted(data.draw(st.sets(st.integers(1, len(factors) - 1), max_size=12))):
        assert resumed(echoing, sizes, states[step - 1], factors[step:]) == whole[step:]


@pytest.mark.parametrize("echoing", [BATCH, EXAMPLE], ids=["batch", "example"])
@given(sizes=SIZES, num_steps=st.integers(1, 40))
def test_at_factor_one_each_step_is_the_next_fresh_batch(echoing, sizes, num_steps):
    stream = Stream(echoing, sizes)
    for step in range(num_steps):
        assert stream.serve(1.0) == stream.batches.at(step).tolist()
        assert stream.use.is_only
        assert stream.batches.num_read == step + 1
        assert stream.state.num_fresh == stream.state.num_steps == step + 1
        assert stream.state.positions_held == ()


@pytest.mark.parametrize("echoing", [BATCH, EXAMPLE], ids=["batch", "example"])
@given(factors=PHASES, sizes=SIZES)
def test_after_echoing_the_stream_is_the_source_again(echoing, factors, sizes):
    stream = Stream(echoing, sizes)
    for factor in [*factors, *DRAINED]:
        stream.serve(factor)
    fresh_before = stream.state.num_fresh
    first = stream.state.position.ordinal
    for ordinal in range(first, first + 10):
        assert stream.serve(1.0) == stream.batches.at(ordinal).tolist()
        assert stream.use.is_only
    assert stream.state.num_fresh == fresh_before + 10


@pytest.mark.parametrize("echoing", [BATCH, EXAMPLE], ids=["batch", "example"])
@given(factor=st.floats(1, 9), sizes=SIZES)
def test_the_first_step_needs_two_fresh_batches_at_most(echoing, factor, sizes):
    stream = Stream(echoing, sizes)
    stream.serve(factor)
    assert stream.batches.num_read <= (1 if factor == 1 else 2)


@given(factors=PHASES)
def test_uses_of_batches_are_those_of_the_echo_and_few_wait(factors):
    stream = Stream(BATCH, [2])
    served, asked = Counter(), []
    num_held = 0
    for factor in factors:
        number = stream.serve(factor)[0] // 2
        served[number] += 1
        held = stream.state.echo.held
        # Of how many uses the echo was asked for in this step:
        num_new = len(held) + 1 - num_held
        most = math.ceil(AUTO_BATCHES * factor) if factor > 1 else 0
        assert num_new == max(not num_held, min(2, most - num_held))
        asked += [factor] * num_new
        num_held = len(held)
    assert AUTO_BATCHES == 8
    factor = iter(asked)
    made = Counter(
        use.item
        for use in itertools.islice(Echo(itertools.count(), lambda: next(factor)), len(asked))
    )
    assert served + Counter(use.item.position.ordinal for use in held) == made


@given(factor=st.floats(1.01, 6), num_fit=st.integers(0, 20))
def test_what_waits_keeps_to_its_bytes(factor, num_fit):
    stream = Stream(BATCH, [2])
    size = 2 * 8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_echo, "AUTO_BYTES", (num_fit + 7) * size)  # 7 are elsewhere
        for _ in range(60):
            stream.serve(factor)
            held = {use.item.position for use in stream.state.echo.held}
            # The next one was counted before it came, and then it may have come here.
            assert (len(held) + 6) * size <= batch_echo.AUTO_BYTES
    if num_fit == 0:
        assert not held
    if num_fit == 20:  # the number of uses binds first
        assert len(stream.state.echo.held) == math.ceil(AUTO_BATCHES * factor) - 1


@given(factors=PHASES, sizes=SIZES)
def test_examples_are_used_as_often_as_the_factor_says_and_none_is_left_out(factors, sizes):
    stream = Stream(EXAMPLE, sizes)
    num_uses = Counter()
    for factor in [*factors, *DRAINED]:
        batch = stream.serve(factor)
        assert batch == sorted(set(batch))
        for number in batch:
            num_uses[number] += 1
            most = num_uses_due(np.array([number]), factor)[0]
            assert num_uses[number] <= max(most, 1)
    echo = stream.state.echo
    assert echo.held == NOTHING_HELD
    assert set(num_uses) == set(range(echo.num_taken))


@given(factor=st.floats(1.01, 6), sizes=SIZES, num_before=st.integers(0, 9))
def test_example_echo_is_exact_from_where_the_factor_rose(factor, sizes, num_before):
    stream = Stream(EXAMPLE, sizes)
    for _ in range(num_before):
        stream.serve(1.0)
    first = stream.state.echo.num_taken if num_before else 0
    num_uses = Counter()
    batches = [stream.serve(factor) for _ in range(60)]
    for batch in batches:
        num_uses.update(batch)
    assert len({len(batch) for batch in batches}) == 1  # all are full
    num_seen = max(num_before + 1, 2)
    assert len(batches[0]) == max(len(stream.batches.at(number)) for number in range(num_seen))
    echo = stream.state.echo
    assert len(batches[0]) == echo.batch_size
    held = dict(zip(*(part.tolist() for part in echo.held), strict=True))
    for number in range(first, echo.num_taken):
        due = int((number + 1) * Fraction(factor)) - int(number * Fraction(factor))
        if number in held:
            assert num_uses[number] == held[number] < due
        else:
            assert num_uses[number] == due
    assert len(held) <= 8 * echo.batch_size


@given(factors=PHASES, sizes=SIZES)
def test_when_the_factor_falls_one_batch_at_most_is_shorter(factors, sizes):
    stream = Stream(EXAMPLE, sizes)
    for factor in factors:
        stream.serve(factor)
    is_passed_on = stream.state.positions_held == ()
    shorter = 0
    while not is_passed_on:
        batch = stream.serve(1.0)
        shorter += len(batch) < stream.state.echo.batch_size
        is_passed_on = stream.state.positions_held == ()
    assert shorter <= 1


@pytest.mark.parametrize("echoing", [BATCH, EXAMPLE], ids=["batch", "example"])
@given(
    num_before=st.integers(1, 9),
    factor=st.floats(1, 9),
    num_filled=st.integers(0, 4),
    num_steps=st.integers(1, 12),
)
def test_what_the_next_steps_take_is_known_while_the_buffer_fills(
    echoing, num_before, factor, num_filled, num_steps
):
    stream = Stream(echoing, [4])
    for each in [1.0] * num_before + [factor] * num_filled:
        stream.serve(each)
    expected = echoing.num_fresh(stream.state.echo, num_steps, factor)
    num_read = stream.batches.num_read
    for _ in range(num_steps):
        stream.serve(factor)
    found = stream.batches.num_read - num_read
    # Examples that are new have all of their uses before them.
    too_many = 1 + (num_steps / factor if echoing is EXAMPLE else 0)
    assert expected - too_many <= found <= expected + 1
