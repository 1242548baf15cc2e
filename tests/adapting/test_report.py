"""What people read: no NaN among the numbers, one full stop at the end."""

import dataclasses
import math

import pytest

from keras_echo._messages import expected
from keras_echo.adapting import report as reporting
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
    head, row, last = report.splitlines()
    assert head.split("  ")[-1] == "from"
    assert row.split() == (
        ["20", "1.90", "2.00", "2.10", "10.00", "ms", "5.00", "ms", "50%", "counters"]
    )
    assert last == "Last: DataEchoCallback raises echo_factor from 1 to 2.1. R = 2.00."
    assert head.index("from") == row.index("counters")


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
