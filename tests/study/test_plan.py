from collections import Counter

import pytest
from study import plan


def test_a_workload_has_one_setting_without_echo_and_all_kinds_with_each_factor():
    for name, task in plan.TASKS.items():
        settings = list(plan.settings([name]))
        assert len(set(settings)) == len(settings)
        assert len(settings) == 2 * (1 + len(task.methods) * len(plan.FACTORS))


def test_every_setting_reads_as_many_fresh_examples_as_without_echo():
    for setting in plan.settings(list(plan.TASKS)):
        assert setting.num_steps == setting.factor * setting.size.num_steps
        assert setting.num_steps % setting.steps_between_evaluations == 0
        assert setting.size.num_steps == plan.NUM_EVALUATIONS * setting.steps_between_evaluations


def test_the_first_runs_are_all_seeds_at_the_common_rate_and_the_tuning_seeds_at_the_others():
    runs = plan.first_runs(["digits"])
    assert len(set(runs)) == len(runs)
    counts = Counter((run.setting, run.learning_rate) for run in runs)
    for (setting, rate), count in counts.items():
        common = rate == setting.size.learning_rate
        assert count == len(plan.SEEDS if common else plan.TUNING_SEEDS)
    assert len(counts) == len(plan.TUNING_GRID) * len(list(plan.settings(["digits"])))


@pytest.mark.parametrize("scale", plan.TUNING_GRID)
def test_first_and_tuned_runs_together_are_all_seeds_at_the_selected_rate(scale):
    selected = {setting: scale * setting.size.learning_rate for setting in plan.settings(["code"])}
    first, tuned = plan.first_runs(["code"]), plan.tuned_runs(["code"], selected)
    assert not set(first) & set(tuned)
    for setting, rate in selected.items():
        seeds = [r.seed for r in first + tuned if (r.setting, r.learning_rate) == (setting, rate)]
        assert sorted(seeds) == sorted(plan.SEEDS)


def test_the_pilot_has_other_seeds_and_no_echo():
    pilot = plan.pilot_runs(list(plan.TASKS))
    assert {run.setting.factor for run in pilot} == {1}
    assert not {run.seed for run in pilot} & set(plan.SEEDS)


def test_tuning_is_done_on_seeds_that_are_reported():
    assert set(plan.TUNING_SEEDS) < set(plan.SEEDS)
    assert 1.0 in plan.TUNING_GRID
