import pytest
from hand_made import reaching_at, record, setting
from hypothesis import given
from hypothesis import strategies as st
from study import plan
from study.measures import measured

ONE = setting(plan.NO_ECHO, 1)
TARGET = plan.TASKS["digits"].target
BETWEEN = ONE.steps_between_evaluations


def test_between_two_evaluations_a_straight_line_tells():
    quality = [0.0] * 4 + [TARGET - 0.02, TARGET + 0.02] + [1.0] * 10
    found = measured(record(ONE, 0, quality))
    assert found.steps_to_target == pytest.approx(5.5 * BETWEEN)
    assert found.fresh_to_target == pytest.approx(5.5 * BETWEEN * ONE.batch_size)


def test_one_evaluation_alone_may_be_luck():
    quality = [0.0] * 4 + [1.0] + [0.0] * 5 + [TARGET] * 6
    assert measured(record(ONE, 0, quality)).steps_to_target == 11 * BETWEEN
    assert measured(record(ONE, 0, [0.0] * 15 + [1.0])).steps_to_target is None


def test_the_first_evaluation_counts_as_a_whole():
    assert measured(record(ONE, 0, [1.0] * 16)).steps_to_target == BETWEEN


def test_less_may_be_better():
    code = setting(plan.NO_ECHO, 1, task="code")
    target = plan.TASKS["code"].target
    quality = [target + 1] * 8 + [target - 1] * 8
    assert measured(record(code, 0, quality)).steps_to_target == pytest.approx(
        8.5 * code.steps_between_evaluations
    )


def test_final_quality_at_equal_steps_and_at_equal_fresh_examples():
    four = setting("example", 4, task="code")
    quality = [n / 100 for n in range(1, 65)]
    num_steps = four.size.num_steps
    # What the buffer holds lets the last two evaluations lie beyond F.
    fresh = [four.steps_between_evaluations * n // 4 for n in range(1, 63)]
    found = measured(record(four, 0, quality, fresh=[*fresh, num_steps + 1, num_steps + 2]))
    assert found.quality_at_equal_steps == pytest.approx(0.15)
    assert found.quality_at_equal_fresh == pytest.approx(0.61)


@given(st.sampled_from(plan.FACTORS), st.floats(0, 1.2))
def test_the_same_share_of_the_run_is_the_same_number_of_fresh_examples(factor, share):
    echoed = setting("batch", factor)
    found = measured(record(echoed, 0, reaching_at(echoed, share)))
    if found.steps_to_target is None:
        assert share * 16 * factor > 16 * factor - 2
    else:
        fresh_steps = found.fresh_to_target / echoed.batch_size * factor
        assert fresh_steps == pytest.approx(found.steps_to_target, abs=2 * factor)
        assert found.steps_to_target / echoed.num_steps == pytest.approx(
            share, abs=1 / (16 * factor)
        )
