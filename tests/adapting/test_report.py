"""What people read: no NaN among the numbers, one full stop at the end."""

import dataclasses
import math

import pytest

from keras_echo._messages import expected
from keras_echo.adapting import report as reporting
from keras_echo.adapting.remedies import Remedy
from keras_echo.adapting.tuner import EchoDecision
from keras_echo.profiling.measuring.result import StepBreakdown, Upstream, from_counters

FOUND = from_counters(
    steps=10,
    seconds=0.1,
    wait_seconds=0.05,
    upstream=Upstream(0.01, "exact", 0.0),
    num_readers=1,
)
DECISION = EchoDecision(20, FOUND, 2.1, 1.0, "R = 2.00", 2.0)
UNKNOWN = dataclasses.replace(
    FOUND,
    **{
        field.name: math.nan
        for field in dataclasses.fields(StepBreakdown)
        if isinstance(getattr(FOUND, field.name), float)
    },
)


def test_a_report_has_the_r_of_the_decision_and_that_of_the_window():
    report = reporting.report([dataclasses.replace(DECISION, ratio=1.9)])
    head, row, last, _, title, nothing = report.splitlines()
    assert head.split("  ")[-1] == "from"
    assert row.split() == (
        ["20", "1.90", "2.00", "2.10", "10.00", "ms", "5.00", "ms", "50%", "counters"]
    )
    assert last == "Last: DataEchoCallback raises echo_factor from 1 to 2.1. R = 2.00."
    assert head.index("from") == row.index("counters")
    assert title == "What would help:"
    assert nothing.startswith("Nothing to gain")


READERS = Remedy(
    "readers",
    "12 readers instead of 4",
    "EchoingPyDataset(..., workers=12)",
    ratio=1.4,
    fresh_per_second=35.71,
    steps_per_second=35.71,
)


def test_remedies_are_listed_with_what_they_bring():
    doubtful = dataclasses.replace(READERS, provided="the source can be pickled")
    assert reporting.listed([READERS, doubtful]).splitlines() == [
        "1. 12 readers instead of 4. Then R = 1.4: 35.7 fresh batches and 35.7 steps a second.",
        "   EchoingPyDataset(..., workers=12)",
        "2. 12 readers instead of 4. Then R = 1.4: 35.7 fresh batches and 35.7 steps a second, "
        "provided that the source can be pickled.",
        "   EchoingPyDataset(..., workers=12)",
    ]


def test_advice_says_why_and_what():
    assert reporting.advice(DECISION, READERS) == (
        "training waited 50% of its time; 12 readers instead of 4 would bring R from 2.0 to about "
        "1.4: EchoingPyDataset(..., workers=12)"
    )
    fed = dataclasses.replace(DECISION, breakdown=dataclasses.replace(FOUND, wait_seconds=0.0))
    assert reporting.advice(fed, READERS).startswith(
        "reading takes 2.0 times as long as training; 12 readers"
    )


def test_what_is_unknown_is_no_number():
    unknown = EchoDecision(20, UNKNOWN, 1.0, 1.0, "R is unknown: no reads", math.nan)
    report = reporting.report([DECISION, unknown])
    assert "nan" not in report
    assert report.splitlines()[2].split() == ["20", "-", "-", "1.00", "-", "-", "-", "counters"]


@pytest.mark.parametrize("reason", ["R = 2.00", "R = 2.00.", "From counters: Stop it!"])
def test_a_line_ends_with_one_full_stop(reason):
    shown = reporting.line(dataclasses.replace(DECISION, reason=reason))
    assert shown.endswith(reason if reason[-1] in ".!" else f"{reason}.")


def test_an_error_has_no_double_full_stop():
    assert ".." not in expected("x", "be short", 3, "Read the message of 'y'.")
    assert expected("x", "be short", "a" * 200, "Cut it").endswith("aaa... Cut it.")
