import itertools
import json
import math

import pytest
from hand_made import reaching_at, record, setting
from study import findings, plan
from study.findings import OWN, PAPER, answer
from study.journal import run_of
from study.page import page
from study.summary import as_json, selected_rates, spread, summarise, unechoed

ONE = setting(plan.NO_ECHO, 1)
BEFORE = setting("example_before", 4)


def records_of(*made):
    return {run_of(record): record for record in made}


def five(setting, *shares, rate=None):
    """Runs of all seeds that reach the target at these shares of their steps."""
    shares = shares if len(shares) > 1 else 5 * shares
    return [
        record(setting, seed, reaching_at(setting, share), rate=rate)
        for seed, share in zip(plan.SEEDS, shares, strict=True)
    ]


def test_a_median_is_known_if_most_runs_reached_the_target():
    row = summarise(records_of(*five(ONE, 0.2, 0.3, 0.4, 2, 2)), ["digits"], "common")[ONE]
    most = ONE.batch_size * ONE.size.num_steps
    assert row.num_reached == 3
    assert 0.35 * most < row.fresh.median <= 0.45 * most
    assert row.fresh.most == math.inf
    row = summarise(records_of(*five(ONE, 0.2, 0.3, 2, 2, 2)), ["digits"], "common")[ONE]
    assert row.fresh.median == math.inf
    assert row.fresh.least < 0.3 * most
    assert as_json({ONE: row})[0]["fresh_to_target"]["median"] is None


def test_a_setting_whose_seeds_are_not_all_there_has_no_row():
    assert not summarise(records_of(*five(ONE, 0.5)[:4]), ["digits"], "common")


def test_infinity_is_the_largest():
    assert spread([None, 1.0, 2.0]) == (2.0, 1.0, math.inf)


def trials(setting, *shares):
    """Runs of the tuning's seeds at each rate of the grid."""
    return [
        record(setting, seed, reaching_at(setting, share), rate=rate)
        for rate, pair in zip(plan.rates(setting), shares, strict=True)
        for seed, share in zip(plan.TUNING_SEEDS, pair, strict=True)
    ]


@pytest.mark.parametrize(
    ("shares", "best"),
    [
        (((0.5, 0.5), (0.4, 0.4), (0.6, 0.6)), 1),
        (((0.9, 0.9), (0.1, 2.0), (2.0, 2.0)), 0),  # reaching it always comes first
        (((0.9, 0.9), (0.5, 0.9), (0.3, 0.8)), 2),
        (((2.0, 2.0), (2.0, 2.0), (0.95, 2.0)), 2),
    ],
)
def test_the_rate_is_selected_that_reaches_the_target_most_often_and_soonest(shares, best):
    records = records_of(*trials(ONE, *shares))
    assert selected_rates(records, ["digits"]) == {ONE: plan.rates(ONE)[best]}


def test_without_any_run_at_the_target_quality_selects():
    made = trials(ONE, *3 * [(2.0, 2.0)])
    for one in made:
        one["quality"] = [0.1 + (one["learning_rate"] == plan.rates(ONE)[2]) / 10] * 16
    assert selected_rates(records_of(*made), ["digits"]) == {ONE: plan.rates(ONE)[2]}


def test_tuned_rows_are_those_of_the_selected_rate():
    made = [*trials(ONE, (0.9, 0.9), (0.5, 0.5), (0.9, 0.9)), *five(ONE, 0.5)]
    rows = summarise(records_of(*made), ["digits"], "tuned")
    assert rows == summarise(records_of(*made), ["digits"], "common")


def verdict(finding, *made):
    found = answer(finding, summarise(records_of(*made), list(plan.TASKS), "common"))
    return found.verdict, found.num_holding, found.num_decided


def test_confirmed_is_three_quarters_of_what_was_decided():
    settings = [setting(m, e) for m in ("batch", "example_after") for e in (2, 4)]
    base = five(ONE, 0.5)
    for num_good, expected in ((4, "confirmed"), (3, "confirmed"), (2, "not confirmed")):
        made = [five(s, 0.2 if n < num_good else 0.8) for n, s in enumerate(settings)]
        assert verdict(PAPER[0], *base, *itertools.chain(*made)) == (expected, num_good, 4)


def test_settings_that_never_reached_the_target_are_worse_than_any_that_did():
    assert verdict(PAPER[0], *five(ONE, 0.5), *five(BEFORE, 2)) == ("not confirmed", 0, 1)
    assert verdict(PAPER[0], *five(ONE, 2), *five(BEFORE, 0.9)) == ("confirmed", 1, 1)


def test_what_nobody_reached_is_undecided():
    assert verdict(PAPER[0], *five(ONE, 2), *five(BEFORE, 2)) == ("not tested", 0, 0)


def test_no_runs_no_verdict():
    for finding in (*PAPER, *OWN):
        assert verdict(finding) == ("not tested", 0, 0)


@pytest.mark.parametrize(
    ("number", "better", "worse"),
    [
        (1, "example_before", "batch"),
        (2, "example_before", "example_after"),
        (3, "batch_shuffled", "batch"),
    ],
)
def test_comparisons_of_two_kinds_of_echoing(number, better, worse):
    better, worse = setting(better), setting(worse)
    base = five(ONE, 0.9)
    assert verdict(PAPER[number], *base, *five(better, 0.2), *five(worse, 0.4))[0] == "confirmed"
    assert verdict(PAPER[number], *base, *five(better, 0.4), *five(worse, 0.2)) == (
        "not confirmed",
        0,
        1,
    )


def test_larger_batches_are_compared_by_what_they_save():
    small, large = setting("batch"), setting("batch", larger=True)
    bases = [*five(ONE, 0.8), *five(unechoed(large), 0.4)]
    # Half of what e = 1 needs, against three quarters.
    assert verdict(PAPER[4], *bases, *five(small, 0.6), *five(large, 0.2))[0] == "confirmed"
    assert verdict(PAPER[4], *bases, *five(small, 0.4), *five(large, 0.3))[0] == "not confirmed"


def test_falling_off_is_read_off_the_first_and_the_last_doubling():
    two, four, eight = (setting("batch", factor) for factor in plan.FACTORS)
    made = [*five(ONE, 0.8), *five(two, 0.4), *five(four, 0.3)]
    assert verdict(PAPER[6], *made, *five(eight, 0.25))[0] == "confirmed"
    assert verdict(PAPER[6], *made, *five(eight, 0.05))[0] == "not confirmed"


def test_no_worse_is_within_the_range_of_no_echo():
    def flat(setting, *values):
        num = plan.NUM_EVALUATIONS * setting.factor
        return [
            record(setting, seed, num * [value])
            for seed, value in zip(plan.SEEDS, values, strict=True)
        ]

    base = flat(ONE, 0.5, 0.6, 0.7, 0.8, 0.9)
    for finding in (PAPER[5], OWN[1]):
        assert verdict(finding, *base, *flat(BEFORE, 0, 0, 0.5, 1, 1))[0] == "confirmed"
        assert verdict(finding, *base, *flat(BEFORE, 0, 0, 0.49, 1, 1))[0] == "not confirmed"


def test_our_own_claim_must_hold_everywhere():
    large = setting("example_before", larger=True)
    bases = [*five(ONE, 0.8), *five(unechoed(large), 0.8)]
    good = [*bases, *five(BEFORE, 0.3)]
    assert verdict(OWN[0], *good, *five(large, 0.35)) == ("confirmed", 2, 2)
    assert verdict(OWN[0], *good, *five(large, 0.6)) == ("not confirmed", 1, 2)


def test_a_claim_of_half_is_kept_even_if_no_echo_never_got_there():
    assert verdict(OWN[0], *five(ONE, 2), *five(BEFORE, 0.4)) == ("confirmed", 1, 1)
    assert verdict(OWN[0], *five(ONE, 2), *five(BEFORE, 0.7)) == ("not tested", 0, 0)


def test_the_page_shows_what_was_not_reached():
    records = records_of(*five(ONE, 0.5), *five(BEFORE, 2))
    rows = {kind: summarise(records, list(plan.TASKS), kind) for kind in ("common", "tuned")}
    text = page(rows, len(records))
    most = f">{ONE.batch_size * ONE.size.num_steps:,}"
    (row,) = [line for line in text.splitlines() if line.startswith("| example, before")]
    assert f"| 0 of 5 | {most} ({most} to {most}) |" in row
    assert "**not confirmed**: 0 of 1" in text


def test_what_does_not_hold_is_named_as_json():
    records = records_of(*five(ONE, 0.5), *five(BEFORE, 2))
    found = answer(PAPER[0], summarise(records, ["digits"], "common"))
    made = findings.as_json(PAPER[0], found)
    assert made["not_holding"] == [{**BEFORE._asdict(), "ratio": None}]
    json.dumps(made, allow_nan=False)
