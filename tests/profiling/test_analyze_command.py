"""`keras-echo analyze`: the report, and what would help."""

import dataclasses

from keras_echo.analyze_command import _advice
from keras_echo.profiling.measuring.reading import Reading, Setup
from keras_echo.profiling.measuring.result import Upstream, from_counters

WAITING = from_counters(
    steps=10, seconds=0.8, wait_seconds=0.6, upstream=Upstream(0.08, "exact", 0.0), num_readers=1
)
READING = Reading(
    Setup(
        num_readers=1,
        queue_size=10,
        num_cores=2,
        is_sequential=False,
        is_auto=False,
        uses_processes=False,
        can_be_cached=False,
    ),
    read_seconds=0.08,
    compute_seconds=0.0,
)


def test_what_would_help_is_told_of_the_last_trace_that_knows():
    known = dataclasses.replace(WAITING, reading=READING)
    advice = _advice([known, WAITING])
    assert advice.startswith("\nWhat would help, by the last of them:\n1. 5 readers instead of 1. ")
    assert "2. Each batch used 4.0 times." in advice


def test_where_no_trace_says_why_reading_is_slow_it_says_how_to_know():
    assert "adapt=False" in _advice([WAITING])


def test_nothing_is_said_of_a_training_that_does_not_wait():
    fed = from_counters(
        steps=10,
        seconds=0.2,
        wait_seconds=0.0,
        upstream=Upstream(0.001, "exact", 0.0),
        num_readers=1,
    )
    assert _advice([fed]) == ""
    assert _advice([]) == ""
