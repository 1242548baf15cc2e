from collections import Counter

from study.plan import AUTO, FOLLOW, NO_ECHO, SEEDS, SHUFFLE_BUFFERS, TASKS
from study.worth import plan


def test_each_workload_and_batch_size_has_the_same_settings_and_one_more_with_larger_batches():
    for name, task in TASKS.items():
        settings = list(plan.settings([name]))
        assert len(set(settings)) == len(settings)
        sizes = Counter(setting.batch_size for setting in settings)
        smaller, larger = (sizes[size.batch_size] for size in task.sizes)
        assert (smaller, larger) == (1 + 9 + 3 + 2, 1 + 9 + 3 + 2 + 1)
        factors = {s.factor for s in settings if s.method == AUTO}
        assert factors == {*plan.FACTORS, plan.LARGE_FACTOR}
        assert {s.factor for s in settings if s.method == FOLLOW} == set(plan.RATIOS)
        assert {s.factor for s in settings if s.method == NO_ECHO} == {1}


def test_every_run_has_the_common_learning_rate_and_every_seed_its_turn():
    runs = plan.runs(["digits"])
    assert len(set(runs)) == len(runs) == len(SEEDS) * len(list(plan.settings(["digits"])))
    assert all(run.learning_rate == run.setting.size.learning_rate for run in runs)


def test_the_axis_of_buffers_is_what_the_methods_hold():
    assert {
        method: held for held, method in plan.BUFFERS.items()
    }.items() <= SHUFFLE_BUFFERS.items()


def test_batches_that_mix_uses_have_no_worth():
    asked = {
        setting.method for setting in plan.settings(list(TASKS)) if plan.measures_worth(setting)
    }
    assert asked == {"batch", AUTO, FOLLOW}
