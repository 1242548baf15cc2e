"""The whole controller in virtual time: neither side rests, and the factor finds R and stays."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import LOOK, Training, delivered

# The same examples each time: what a run comes to is bounded for almost all, but not for all.
SETTINGS = settings(max_examples=20, deadline=None, derandomize=True)


def lognormal(mean, seed=0, num=20_000):
    return (mean * np.random.default_rng(seed).lognormal(-0.5, 1.0, num)).tolist()


def fresh_share(training, seconds, num_readers=1, window_size=10):
    """Fresh batches over those that the readers deliver to somebody who takes all at once."""
    return training.num_fresh / delivered(seconds, num_readers, window_size, training.seconds)


@SETTINGS
@given(
    ratio=st.floats(1.1, 7.5),
    num_readers=st.integers(1, 6),
    room=st.integers(1, 20),
    factor=st.sampled_from([1.0, 2.0, 8.0]),
)
def test_steady_reads_the_factor_finds_r_and_stays(ratio, num_readers, room, factor):
    window_size = 2 * num_readers + room
    seconds = [ratio * num_readers] * 20_000
    training = Training(
        seconds, num_readers=num_readers, window_size=window_size, factor=factor, num_steps=2000
    )
    found = training.factors[700]
    assert found == pytest.approx(max(1.0, 0.97 * ratio), rel=0.04)
    assert set(training.factors[700:]) == {found}
    assert training.step_rate > 0.94  # a fresh batch that is about to come is waited for
    assert fresh_share(training, seconds, num_readers, window_size) > 0.96


@SETTINGS
@given(ratio=st.floats(0.1, 0.95), num_readers=st.integers(1, 6))
def test_where_training_is_not_input_bound_each_batch_is_used_once(ratio, num_readers):
    training = Training([ratio * num_readers] * 2000, num_readers=num_readers)
    assert training.batches == [*range(1, 1001)]
    assert set(training.factors) == {1.0}


@SETTINGS
@given(before=st.floats(1.5, 7.5), after=st.floats(1.5, 7.5), num_readers=st.integers(1, 4))
def test_a_change_is_followed(before, after, num_readers):
    num_before = int(500 / before)  # reads of the first 500 steps
    seconds = [before * num_readers] * num_before + [after * num_readers] * 20_000
    training = Training(seconds, num_readers=num_readers, num_steps=2000)
    is_large = max(before, after) > 1.4 * min(before, after)
    if is_large:
        assert training.factors[500 + 4 * LOOK] == pytest.approx(0.97 * after, rel=0.1)
        assert training.factors[-1] == pytest.approx(0.97 * after, rel=0.05)
    assert training.step_rate > 0.97
    assert fresh_share(training, seconds, num_readers) > 0.95


@SETTINGS
@given(
    ratio=st.floats(1.5, 7),
    num_readers=st.integers(1, 4),
    validation_seconds=st.floats(10, 500),
    may_read_ahead=st.booleans(),
)
def test_a_pause_of_training_is_no_rest(ratio, num_readers, validation_seconds, may_read_ahead):
    training = Training(
        [ratio * num_readers] * 20_000,
        num_readers=num_readers,
        validation_seconds=validation_seconds,
        may_read_ahead=may_read_ahead,
        num_steps=1500,
    )
    assert training.factors[LOOK:] == pytest.approx([0.97 * ratio] * 1400, rel=0.05)
    assert all(not found.held_fraction > 0.1 for found in training.breakdowns)
    assert training.step_rate > 0.97


@SETTINGS
@given(drift=st.floats(2, 4))
def test_a_slow_drift_is_followed(drift):
    seconds = [2.0 * drift ** min(number / 400, 1) for number in range(20_000)]
    training = Training(seconds, num_steps=3000)
    assert training.factors[-1] == pytest.approx(0.97 * min(2 * drift, 8), rel=0.2)
    assert training.step_rate > 0.97


@SETTINGS
@given(seed=st.integers(0, 999), ratio=st.floats(1.5, 4))
def test_uneven_reads(seed, ratio):
    seconds = lognormal(ratio, seed)
    training = Training(seconds, num_steps=2000)
    assert training.step_rate > 0.9
    assert fresh_share(training, seconds) > 0.95


def test_bursts_and_stragglers():
    bursts = [2.0 * (0.25 if number % 5 else 4.0) for number in range(20_000)]
    straggler = [2.0 * 4 / 3.25 * (1 if number % 4 else 10) for number in range(20_000)]
    for seconds, num_readers in ((bursts, 1), (straggler, 4)):
        training = Training(seconds, num_readers=num_readers, num_steps=2000)
        assert training.step_rate > 0.97
        assert fresh_share(training, seconds, num_readers) > 0.97


def test_in_an_outage_training_goes_on_until_every_kept_batch_is_used_up():
    seconds = [2.0] * 100 + [200.0] + [2.0] * 20_000
    training = Training(seconds, max_factor=30.0)
    (outage,) = [step for step, wait in enumerate(training.wait_seconds) if wait > 10]
    waited = training.wait_seconds[outage]
    uses = [training.batches[:outage].count(batch) for batch in range(97, 101)]
    assert max(uses) == 30  # of the four that are kept, each as often as it may
    assert sum(uses) >= 4 * 29
    assert waited == pytest.approx(200 - sum(uses), abs=25)
    assert training.factors[-1] == pytest.approx(0.97 * 2, rel=0.05)


@SETTINGS
@given(seed=st.integers(0, 999), num_readers=st.integers(1, 4))
def test_training_waits_only_while_nothing_may_be_used_again(seed, num_readers):
    training = Training(lognormal(3.0 * num_readers, seed), num_readers=num_readers)
    started = training.factors.index(next(f for f in training.factors if f > 1))
    for step, wait in itertools.islice(enumerate(training.wait_seconds), started, None):
        if wait > 0.11:  # the little patience that a fresh batch deserves
            last = list(dict.fromkeys(reversed(training.batches[:step])))[:4]
            assert all(training.batches[:step].count(batch) >= 8 for batch in last)
