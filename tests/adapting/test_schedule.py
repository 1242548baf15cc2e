import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.adapting.schedule import (
    BUDGET,
    FEWEST_CALLS,
    URGENT_BUDGET,
    Balance,
    Look,
    Schedule,
)


def windows(schedule, *, epochs, steps_per_call=1, seconds=1e9, is_urgent=False):
    """Trains; returns (first step, calls) of each window."""
    found, step = [], 0
    schedule.begin_fit(0, steps_per_call)
    for num_steps in epochs:
        schedule.begin_epoch(step, num_steps)
        busy_until = -1
        for call in range(step, step + num_steps, steps_per_call):
            if call > busy_until and call >= schedule.next_step:
                calls = schedule.begin_window(call, seconds, is_urgent)
                if calls:
                    found.append((call + calls.ready_before * steps_per_call, calls.traced))
                    busy_until = call + sum(calls) * steps_per_call
        step += num_steps
    return found


@given(
    epochs=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    warmup=st.integers(0, 30),
    steps=st.integers(3, 30),
    freq=st.none() | st.integers(1, 50),
    per_call=st.integers(1, 5),
)
def test_windows_lie_within_epochs_behind_the_warm_up(epochs, warmup, steps, freq, per_call):
    ends = [sum(epochs[: count + 1]) for count in range(len(epochs))]
    schedule = Schedule(warmup, steps, freq)
    for first, calls in windows(schedule, epochs=epochs, steps_per_call=per_call):
        assert first >= warmup
        assert FEWEST_CALLS <= calls <= max(FEWEST_CALLS, math.ceil(steps / per_call))
        # The call behind the last one belongs to the same epoch.
        end = next(end for end in ends if end > first)
        assert first + calls * per_call < end


def test_the_first_decision_comes_within_the_warm_up_and_one_window():
    assert windows(Schedule(10, 10, None), epochs=[100]) == [(10, 10)]


def test_one_window_in_each_epoch_or_one_every_so_many_steps():
    assert windows(Schedule(10, 10, None), epochs=[100] * 3) == [(10, 10), (110, 10), (210, 10)]
    assert windows(Schedule(10, 5, 40), epochs=[100]) == [(10, 5), (50, 5), (90, 5)]


def test_short_epochs_have_short_windows():
    assert windows(Schedule(10, 10, None), epochs=[6] * 4) == [(12, 5), (18, 5)]
    assert windows(Schedule(10, 10, None), epochs=[3] * 9) == []


def test_windows_are_left_out_where_they_cost_too_much_unless_urgent():
    def second(is_urgent, spent):
        schedule = Schedule(10, 10, None)
        windows(schedule, epochs=[100])
        schedule.spent(spent)
        schedule.begin_epoch(100, 100)
        return schedule.begin_window(110, 10.0, is_urgent)

    assert second(is_urgent=False, spent=10 * BUDGET * 0.9) == (0, 10, 8)
    assert second(is_urgent=False, spent=10 * BUDGET * 1.1) is None
    assert second(is_urgent=True, spent=10 * URGENT_BUDGET * 0.9) == (0, 10, 8)
    assert second(is_urgent=True, spent=10 * URGENT_BUDGET * 1.1) is None


def test_an_epoch_of_unknown_length_is_measured():
    schedule = Schedule(10, 10, None)
    schedule.begin_fit(0, 1)
    schedule.begin_epoch(0, math.inf)
    assert schedule.begin_window(2, 1.0, False) == (8, 10, 0)


def test_steps_without_a_wait_belong_to_the_warm_up_or_follow_the_trace():
    for warmup, before in ((8, 8), (7, 0), (0, 0)):
        schedule = Schedule(warmup, 10, 50)
        schedule.begin_fit(0, 1)
        schedule.begin_epoch(0, 100)
        assert schedule.next_step == warmup - before
        # Without them where the warm-up is too short, so that the first decision comes early.
        assert schedule.begin_window(warmup - before, 1.0, False) == (before, 10, 0)
        assert schedule.begin_window(schedule.next_step, 1.0, False) == (0, 10, 8)


def looks(*spans, is_least=False, is_most=False, factor=2.0):
    """Whether the balance has changed, after each (steps, fresh batches, seconds, wait, held)."""
    balance, total, found = Balance(), Look(0, 0, 0.0, 0.0, 0.0), []
    balance.has_changed(total, factor, is_least=is_least, is_most=is_most)
    for span in spans:
        total = Look(*(sum(pair) for pair in zip(total, span, strict=True)))
        found.append(balance.has_changed(total, factor, is_least=is_least, is_most=is_most))
    return found


CALM = (100, 50, 10.0, 0.0, 0.0)
STRETCHED = (100, 40, 10.0, 0.0, 0.0)  # 2.5 uses each, by max_uses
SHORTENED = (100, 70, 10.0, 0.0, 0.0)  # 1.4 uses each, by min_uses
WAITS = (100, 50, 10.0, 3.0, 0.0)
RESTS = (100, 50, 10.0, 0.0, 3.0)


@pytest.mark.parametrize("fault", [STRETCHED, SHORTENED, WAITS, RESTS])
def test_a_change_is_noticed_when_two_looks_agree_and_once(fault):
    assert looks(CALM, fault, CALM, fault, fault, fault, fault) == [False] * 4 + [
        True,
        False,
        False,
    ]
    assert looks(fault, fault, CALM, fault, fault) == [False, True, False, False, True]


def test_what_no_factor_can_change_is_no_change():
    assert not any(looks(*[STRETCHED, WAITS] * 4, is_most=True))
    assert not any(looks(*[SHORTENED, RESTS] * 4, is_least=True))
    assert not any(looks(CALM, *[(100, 0, 10.0, 9.0, 0.0)] * 4))  # no fresh batch: an outage


def test_two_looks_that_contradict_each_other_are_no_change():
    assert not any(looks(*[STRETCHED, SHORTENED] * 4))


def test_what_changes_further_is_noticed_again():
    worse = (100, 30, 10.0, 0.0, 0.0)
    assert looks(STRETCHED, STRETCHED, worse, worse).count(True) == 2
