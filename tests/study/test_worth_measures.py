import math

import pytest
from hand_made import setting, worth_record
from hypothesis import given
from hypothesis import strategies as st
from study import plan
from study.worth.measures import time_to_target

TARGET = plan.TASKS["digits"].target
HALFWAY = [0.0, TARGET - 0.02, TARGET + 0.02, 1.0]  # into the third interval, of 20 steps each
# 8 uses of each batch, then one: reading was idle, and then keeps training waiting.
FRESH = [3, 5, 25, 45]


def test_each_interval_takes_as_long_as_the_slower_of_reading_and_training():
    # At R = 4, 20 steps take 5: so do the first two intervals, with a batch ahead behind them. Then
    # 19 more have to be read, of which half are until the target.
    record = worth_record(setting("auto", 8), 0, HALFWAY, fresh=FRESH)
    assert time_to_target(record, 4) == pytest.approx(5 + 5 + 19 / 2)
    # At R = 8 they take 2.5: the first waits for 0.5, and the second ends with half a batch ahead.
    assert time_to_target(record, 8) == pytest.approx(3 + 2.5 + 19.5 / 2)


def test_measuring_costs_time_only_where_worth_is_followed():
    steps = [0.0, 4.0, 8.0, 8.0]
    fixed = worth_record(setting("auto", 4), 0, HALFWAY, fresh=FRESH, measuring_steps=steps)
    assert time_to_target(fixed, 4) == pytest.approx(19.5)
    follows = worth_record(setting("follow", 4), 0, HALFWAY, fresh=FRESH, measuring_steps=steps)
    assert time_to_target(follows, 4) == pytest.approx(19.5 + (4 + 4 / 2) / 4)


def test_without_echoing_time_is_what_is_read():
    record = worth_record(setting(plan.NO_ECHO, 1), 0, HALFWAY)
    assert time_to_target(record, 4) == time_to_target(record, 8) == pytest.approx(50)


def test_the_target_may_never_be_reached():
    record = worth_record(setting(plan.NO_ECHO, 1), 0, [0.0] * 16)
    assert time_to_target(record, 4) is None


@given(st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from(list(plan.TASKS)), st.booleans())
def test_whole_batches_between_evaluations_cost_no_more_than_one_batch(factor, task, larger):
    echoed = setting("auto", factor, task=task, larger=larger)
    good = TARGET if task == "digits" else plan.TASKS[task].target
    num = 16 * factor
    bad = 99.0 if plan.TASKS[task].lower_is_better else 0.0
    between = echoed.steps_between_evaluations
    fresh = [math.ceil(between * n / factor) for n in range(1, num + 1)]
    record = worth_record(echoed, 0, [bad] * (num - 2) + [good] * 2, fresh=fresh)
    for ratio in (4, 8):
        exact = between * (num - 1) * max(1 / factor, 1 / ratio)
        assert exact <= time_to_target(record, ratio) + 1e-9
        assert time_to_target(record, ratio) <= exact + 1 + 1e-9
