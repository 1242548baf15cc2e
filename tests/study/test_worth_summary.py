import json
import math

import numpy as np
import pytest
from hand_made import reaching_at, setting, worth_record
from study import plan
from study.findings import answer
from study.journal import run_of
from study.summary import Spread
from study.worth import findings, summary
from study.worth.page import page
from study.worth.plan import FACTORS, RATIOS
from study.worth.summary import Prediction, Row, predictions, summarise

from keras_echo.adapting.worth import Estimate, Estimates

ONE = setting(plan.NO_ECHO, 1)


def flat(value):
    return Spread(value, value, value)


def row(setting, *, fresh=math.inf, time=math.inf, worth=None):
    times = {ratio: flat(time) for ratio in RATIOS}
    return Row(setting, 5, flat(fresh), times, Estimates(worth or {}), flat(float(setting.factor)))


def rows_of(*rows):
    return {row.setting: row for row in rows}


def verdict(finding, *rows):
    found = answer(finding, rows_of(*rows))
    return found.verdict, found.num_holding, found.num_decided


def test_the_default_must_save_everywhere():
    saves, _ = findings.OF_THE_DEFAULT
    large = setting("auto", 4, larger=True)
    base = [row(ONE, fresh=100), row(summary.unechoed(large), fresh=200)]
    auto = setting("auto", 4)
    assert verdict(saves, *base, row(auto, fresh=70), row(large, fresh=140)) == ("confirmed", 2, 2)
    bad = row(auto, fresh=70), row(large, fresh=141)
    assert verdict(saves, *base, *bad) == ("not confirmed", 1, 2)
    assert verdict(saves, *base, row(auto, fresh=math.inf)) == ("not confirmed", 0, 1)
    assert verdict(saves, row(setting(plan.NO_ECHO, 1, task="detection"), fresh=100)) == (
        "not tested",
        0,
        0,
    )


def test_the_default_may_be_as_late_as_no_echoing_and_no_later():
    _, later = findings.OF_THE_DEFAULT
    base = row(ONE, time=50)
    four, eight = setting("auto", 4), setting("auto", 8)
    assert verdict(later, base, row(four, time=50), row(eight, time=30)) == ("confirmed", 2, 2)
    assert verdict(later, base, row(four, time=50.1)) == ("not confirmed", 0, 1)
    assert verdict(later, base, row(setting("auto", 2), time=99)) == ("not tested", 0, 0)
    assert verdict(later, row(ONE), row(four)) == ("not tested", 0, 0)


def cases(*ratios):
    """Rows in which following worth takes these times as long as the best factor, e = 4."""
    rows = []
    places = [(name, larger, R) for name in plan.TASKS for larger in (False, True) for R in RATIOS]
    for (name, larger, ratio), times in zip(places, ratios, strict=False):
        one = setting(plan.NO_ECHO, 1, task=name, larger=larger)
        rows += [
            row(one, time=30),
            row(one._replace(method="follow", factor=ratio), time=10 * times),
        ]
        rows += [
            row(one._replace(method="auto", factor=e), time=10 if e == 4 else 20) for e in FACTORS
        ]
    return rows_of(*rows)


@pytest.mark.parametrize(
    ("ratios", "default", "num_close"),
    [
        ((1.0, 1.05, 1.1, 0.9, 1.5), "follow", 4),
        ((1.0, 1.05, 1.1, 0.9, 1.51), "report", 4),
        ((1.0, 1.05, 1.1, 1.2, 1.2), "report", 3),
        ((1.0, 1.0, 1.0, 1.0, math.inf), "report", 4),
    ],
)
def test_following_becomes_the_default_by_the_rule(ratios, default, num_close):
    found = findings.verdict_on_following(cases(*ratios))
    assert (found.default, found.num_close, len(found.cases)) == (default, num_close, 5)
    assert {case.best for case in found.cases} == {4}
    json.dumps(findings.verdict_as_json(found), allow_nan=False)


def test_without_all_fixed_factors_there_is_no_verdict():
    rows = cases(1.0)
    del rows[setting("auto", 2, task="code")]
    assert findings.verdict_on_following(rows).default is None


def prediction(number, last, saved, factor=4):
    task = list(plan.TASKS)[number % 5]
    return Prediction(
        setting("auto", factor, task=task), Estimate(last, 0.1, 9), -last, last, saved
    )


def test_rank_correlations_of_planted_cases():
    lasts, saved = [-0.5, 0.1, 0.4, 0.9], [0.5, 1.0, 3.0, 2.0]
    found = findings.correlations(
        [prediction(*each) for each in zip(range(4), lasts, saved, strict=True)]
    )
    # One pair of neighbours is exchanged: 1 - 6 * 2 / (4 * 15).
    assert found.last == pytest.approx(0.8)
    assert found.average == pytest.approx(-0.8)
    assert found.predicts
    assert not found._replace(last=0.69).predicts
    assert findings.correlations([prediction(0, 1, 1)] * 2) is None


def test_correlations_are_taken_for_each_factor_alone():
    planted = [prediction(n, n, n, factor=2) for n in range(3)]
    planted += [prediction(n, n, 10 - n, factor=8) for n in range(3)]
    found = findings.correlations_by_factor(planted)
    assert {name: round(each.last, 6) for name, each in found.items() if name != "all"} == {
        "e = 2": 1,
        "e = 8": -1,
    }
    assert found["all"].num == 6


def test_what_worth_says_of_a_setting():
    worth = {use: Estimate(mean, 0.1, 9) for use, mean in enumerate((2.0, 1.0, 0.5, -0.5), 1)}
    echoed = setting("batch", 4)

    def predicted():
        return predictions(rows_of(row(ONE, fresh=300), row(echoed, fresh=100, worth=worth)))

    (found,) = predicted()
    assert found.last.mean == -0.25
    assert (found.average, found.total, found.saved) == pytest.approx((1.5 / 4, 1.5, 3))
    worth.pop(3)
    assert not predicted()
    worth |= {1: Estimate(0.19, 0.1, 9), 3: Estimate(1.0, 0.1, 9)}  # which may be noise
    assert not predicted()


def test_what_was_never_reached_saved_nothing():
    worth = dict.fromkeys((1, 2), Estimate(1.0, 0.1, 9))
    echoed = setting("batch", 2)
    (found,) = predictions(rows_of(row(ONE, fresh=300), row(echoed, worth=worth)))
    assert found.saved == 0
    assert not predictions(rows_of(row(ONE), row(echoed, fresh=100, worth=worth)))


def windows(seed):
    """Of two uses in random order, the first is worth 0.4, and the second 0.1."""
    rng = np.random.default_rng(seed)
    uses = rng.integers(1, 3, (50, 16))
    decreases = np.array([0.4, 0.1])[uses - 1] + 0.01 * rng.normal(size=uses.shape)
    return list(zip(uses.tolist(), decreases.tolist(), strict=True))


def records(*settings):
    return {
        run_of(made): made
        for each in settings
        for seed in plan.SEEDS
        for made in [
            worth_record(
                each,
                seed,
                reaching_at(each, 0.5),
                windows=windows(seed),
            )
        ]
    }


def test_worth_is_that_of_the_steps_of_all_seeds():
    two = setting("auto", 2)
    rows = summarise(records(ONE, two), ["digits"])
    assert set(rows) == {ONE, two}
    assert rows[two].worth[1].mean == pytest.approx(0.4, rel=0.02)
    assert rows[two].worth[2].mean == pytest.approx(0.1, rel=0.02)
    assert sum(estimate.num for estimate in rows[two].worth.values()) == 5 * 50 * 14
    assert rows[two].times.keys() == set(RATIOS)
    json.dumps(summary.as_json(rows), allow_nan=False)


def test_the_page_says_what_the_rows_say():
    rows = cases(*[1.0] * 19, 1.6)
    text = page(rows, 123)
    assert "In 19 of 20 cases" in text
    assert '`worth="report"`' in text
    assert "1.60 times at most" in text
    assert "**Runs:** 123" in text
    assert "$" not in text


def test_the_page_without_runs_has_no_figures():
    text = page({}, 0)
    assert "**Yes**" not in text
    assert "**No**" not in text
    assert "not tested" in text
