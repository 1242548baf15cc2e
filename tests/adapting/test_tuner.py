import dataclasses
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keras_echo.adapting.tuner import (
    BRIDGING,
    DEAD_BAND,
    DISAGREEMENT,
    WAITING,
    NextWindow,
    decide,
)
from keras_echo.profiling.measuring.result import Upstream, from_counters

FACTORS = st.floats(1, 20)
RATIOS = st.floats(0.01, 100)
BOUNDS = st.sampled_from(["exact", "lower", "upper"])


def measured(ratio, bound="exact", starved=0.0, held=0.0):
    """A breakdown with that R: a step of 1 second, so many seconds for reading a batch."""
    known = Upstream(ratio, bound, held)
    found = from_counters(steps=10, seconds=10.0, wait_seconds=0.0, upstream=known, num_readers=1)
    return dataclasses.replace(found, starved_fraction=starved)


def followed(ratios, factor=1.0, max_factor=8.0, policy=WAITING):
    """The factors after each window."""
    factors, windows = [], []
    for ratio in ratios:
        windows.append(measured(ratio))
        factor = decide(
            windows, factor, min_factor=1.0, max_factor=max_factor, policy=policy
        ).factor
        factors.append(factor)
    return factors


@given(
    windows=st.lists(st.tuples(RATIOS | st.just(math.nan), BOUNDS, st.floats(0, 1)), min_size=1),
    factor=FACTORS,
    least=st.floats(1, 4),
    more=st.floats(0, 10),
)
def test_a_new_factor_is_within_its_limits(windows, factor, least, more):
    found = [measured(*window) for window in windows]
    after, _, reason, _ = decide(found, factor, min_factor=least, max_factor=least + more)
    assert after == factor or least - 0.01 <= after <= least + more + 0.01
    assert reason.startswith("R ")


@given(ratio=RATIOS, factor=FACTORS, policy=st.sampled_from([BRIDGING, WAITING]))
def test_one_window_is_enough_and_the_factor_stays_there(ratio, factor, policy):
    wanted = min(max(policy.aim * ratio, 1.0), 8.0) if ratio > 1 else 1.0
    after = followed([ratio] * 5, factor, policy=policy)
    assert all(other == after[0] for other in after)
    assert after[0] == pytest.approx(wanted, rel=1.1 * DEAD_BAND, abs=0.01)


@given(ratio=st.floats(0, 1), factor=FACTORS)
def test_it_is_exactly_one_where_training_is_not_input_bound(ratio, factor):
    assert followed([ratio], factor) == [1.0]


@given(ratio=st.floats(1.5, 7), noise=st.lists(st.floats(-0.015, 0.015), min_size=2, max_size=20))
def test_small_noise_changes_nothing(ratio, noise):
    first, *rest = followed([ratio, *(ratio * (1 + part) for part in noise)])
    assert rest == [first] * len(rest)


@given(before=st.floats(1.1, 8), after=st.floats(1.1, 8))
def test_a_change_is_followed_within_two_windows(before, after):
    assume(max(before, after) / min(before, after) > 1.01 + DISAGREEMENT)
    factors = followed([before] * 4 + [after] * 3)
    wanted = min(WAITING.aim * after, 8)
    assert factors[5:] == pytest.approx([wanted] * 2, rel=1.1 * DEAD_BAND, abs=0.01)


@given(before=st.floats(1.1, 8), change=st.floats(-DISAGREEMENT, DISAGREEMENT))
def test_a_smaller_change_is_followed_when_more_windows_say_so(before, change):
    after = max(before * (1 + change), 1.01)
    factors = followed([before] * 4 + [after] * 9)
    assert factors[-1] == pytest.approx(min(WAITING.aim * after, 8), rel=1.1 * DEAD_BAND, abs=0.01)


@given(ratio=st.floats(1.1, 8), outlier=RATIOS)
def test_one_disturbed_window_among_three_changes_nothing(ratio, outlier):
    factors = followed([ratio, ratio, ratio, outlier, ratio])
    assert factors[3:] == factors[2:3] * 2


def test_the_cap_is_called_what_it_is():
    choice = decide(
        [measured(6.0)], 3.0, min_factor=1.0, max_factor=3.0, limited_by="what uses are worth,"
    )
    assert choice.reason.startswith("R = 6.00, above what uses are worth, 3")


def test_what_the_cap_costs_is_said():
    def reason(*window, factor=1.0, waited=0.94):
        found = dataclasses.replace(measured(*window), wait_seconds=waited)
        choice = decide([found], factor, min_factor=1.0, max_factor=8.0)
        assert choice.factor == 8.0
        return choice.reason.partition(", above max_factor 8")[2]

    # What was measured is said of the factor at which it was.
    assert reason(16.0) == ": training waited 94% of the time at 1, at 8 it waits 50%"
    assert reason(8.16) == ": training waited 94% of the time at 1, at 8 it waits 2%"
    assert reason(16.0, factor=8.0, waited=0.52) == ": training waited 52% of the time at 8"
    assert reason(16.0, waited=math.nan) == ": at 8 it waits 50%"
    assert reason(16.0, factor=8.0, waited=math.nan) == ""
    assert reason(16.0, "lower").endswith("at 8 it waits at least 50%")


def test_the_line_and_the_decision_have_one_r_and_name_the_window_s_own():
    windows = [measured(ratio) for ratio in (4.0, 4.0, 4.5)]
    choice = decide(windows, 3.9, min_factor=1.0, max_factor=8.0)
    assert (choice.ratio, choice.reason) == (4.0, "R = 4.00 (4.50 in this window)")
    choice = decide(windows[:2], 3.9, min_factor=1.0, max_factor=8.0)
    assert (choice.ratio, choice.reason) == (4.0, "R = 4.00")
    for bound in ("lower", "upper"):
        assert decide([measured(3.0, bound)], 2.0, min_factor=1, max_factor=8).ratio == 3.0


def test_bounds_move_the_factor_towards_where_r_may_be():
    def after(*window, factor=4.0, policy=WAITING):
        choice = decide([measured(*window)], factor, min_factor=1.0, max_factor=8.0, policy=policy)
        return choice.factor, choice.reason

    assert after(6.0, "lower") == (6.12, "R is at least 6.00")
    assert after(6.0, "lower", policy=BRIDGING) == (5.82, "R is at least 6.00")
    assert after(2.0, "lower") == (4.0, "R is at least 2.00")
    assert after(4.0, "upper") == (3.6, "R is at most 4.00")
    assert after(2.0, "upper") == (2.0, "R is at most 2.00")
    assert after(4.0, "upper", 0.3) == (4.0, "R is at most 4.00")  # it waits: don't echo less
    assert after(4.0, "upper", math.nan) == (4.0, "R is at most 4.00")  # nobody sees a wait
    assert after(1.0, "upper", factor=1.0) == (1.0, "R is at most 1.00")


def test_where_readers_rest_less_is_tried_until_r_can_be_seen():
    def after(ratio, factor, policy=BRIDGING):
        found = measured(ratio, "lower", held=0.5)
        return decide([found], factor, min_factor=1.0, max_factor=8.0, policy=policy)

    for policy, wanted in ((BRIDGING, 4.0), (WAITING, 7.2)):
        choice = after(0.1, 8.0, policy)
        assert choice.factor == wanted
        assert choice.next_window is NextWindow.AT_ONCE
    assert choice.reason == ("R is at least 0.10 and less than 8, since readers had nothing to do")
    assert after(3.0, 4.0).factor == 2.91  # no less than it can be
    assert after(0.5, 1.0) == (1.0, 0.5, "R is at least 0.50", NextWindow.IF_CHEAP)


def test_what_is_unknown_changes_nothing_and_is_named():
    factor, ratio, reason, _ = decide(
        [dataclasses.replace(measured(math.nan), missing=("no reads",))],
        3.0,
        min_factor=1.0,
        max_factor=8.0,
    )
    assert (factor, reason) == (3.0, "R is unknown: no reads")
    assert math.isnan(ratio)


def test_the_next_window_comes_at_once_in_turn_or_if_it_is_cheap():
    def next_window(*ratios, factor):
        windows = [measured(ratio) for ratio in ratios]
        return decide(windows, factor, min_factor=1.0, max_factor=8.0, policy=BRIDGING).next_window

    assert next_window(4.0, factor=1.0) is NextWindow.AT_ONCE
    assert next_window(4.0, 4.6, factor=3.9) is NextWindow.IN_TURN
    assert next_window(4.0, 4.1, 4.0, 4.1, 4.0, factor=4.0) is NextWindow.IF_CHEAP
    assert next_window(4.0, 4.1, 4.0, 4.1, 7.0, factor=4.0) is NextWindow.AT_ONCE
    assert next_window(0.6, factor=1.0) is NextWindow.IF_CHEAP
    assert next_window(20.0, factor=8.0) is NextWindow.IF_CHEAP
