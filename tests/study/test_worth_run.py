import dataclasses

import keras
import numpy as np
import pytest
from study import plan

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the study runs on JAX")


def short(method, factor, num_steps=64, seed=0):
    class Short(plan.Setting):
        num_steps = 0
        steps_between_evaluations = 8

    Short.num_steps = num_steps
    return plan.Run(Short("digits", 16, method, factor), 4e-3, seed)


def test_measuring_changes_nothing(digits, model):
    from study import training
    from study.worth.training import train

    run = short("batch", 2)
    found = train(digits, model, run)
    measured = model.get_weights()
    fresh, quality = training.train(digits, model, run)
    assert (found["fresh_batches"], found["quality"]) == (fresh, quality)
    for a, b in zip(measured, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_uses_are_those_that_the_steps_made(digits, model):
    from study.worth.training import train

    found = train(digits, model, short("batch", 2))
    assert [uses for uses, _ in found["windows"]] == [8 * [1, 2]]  # steps 16 to 31; 48 to 63 end
    (_, decreases), *_ = found["windows"]
    assert np.all(np.isfinite(decreases))
    mixed = train(digits, model, short("auto", 4, num_steps=128))["windows"]
    assert {use for uses, _ in mixed for use in uses} == {1, 2, 3, 4}
    assert mixed[-1][0] != sorted(mixed[-1][0])


def with_target(monkeypatch, target):
    task = dataclasses.replace(plan.TASKS["digits"], target=target)
    monkeypatch.setitem(plan.TASKS, "digits", task)


def test_a_run_ends_at_its_target(digits, model, monkeypatch):
    from study.measures import reached
    from study.worth.training import train

    with_target(monkeypatch, 0.6)
    found = train(digits, model, short(plan.NO_ECHO, 1, num_steps=400))
    num = len(found["quality"])
    assert num < 400 // 8
    assert reached({"task": "digits", "quality": found["quality"]}).interval == num - 2
    assert {len(found[name]) for name in ("fresh_batches", "factors", "measuring_steps")} == {num}


def test_where_worth_is_followed_the_factor_changes_and_no_more_is_read(digits, model, monkeypatch):
    from study.worth import measuring
    from study.worth.training import train

    monkeypatch.setattr(measuring, "next_limit", lambda estimates, factor, limit: factor - 1)
    with_target(monkeypatch, 1.1)  # never reached
    run = short("follow", 4, num_steps=4 * 320)
    found = train(digits, model, run)
    factors = found["factors"]
    assert factors[0] == 4
    assert sorted(factors, reverse=True) == factors
    assert factors[-1] < 4
    assert 320 <= found["fresh_batches"][-1] < 320 + 8
    num_steps = 8 * len(factors)
    assert num_steps < run.setting.num_steps
    assert 0 < found["measuring_steps"][-1] <= 0.05 * num_steps
