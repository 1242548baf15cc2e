import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.profiling.measuring.breakdown import breakdown
from keras_echo.profiling.measuring.result import (
    MISSING_READS,
    MISSING_WORK,
    StepBreakdown,
    Upstream,
    from_counters,
    missing_waits,
)
from keras_echo.profiling.measuring.spans import Spans, merge, overlap
from keras_echo.profiling.report import render


def window(up, down, echo, readers, steps=40, run_ahead=False):
    """The spans of a training that follows the cost model exactly."""
    spans, waits, busy, now, arrival = [], [], [], 0.0, 0.0
    per_fresh = max(up, echo * down)
    for step in range(steps):
        begin = now
        if step % echo == 0:
            now = max(now, arrival)
            arrival += per_fresh
        waits.append((begin, now))
        busy.append((now, now + down))
        now += down
        spans.append((begin, now))
    if run_ahead:
        # The host dispatches at once what the device works off; the last step waits for it.
        end = now
        spans = [(n * 1e-4, (n + 1) * 1e-4) for n in range(steps)]
        spans[-1] = (spans[-1][0], end)
        waits = [(begin, begin + 5e-5) for begin, _ in spans]
    reads = []
    for reader in range(readers):
        starts = np.arange(6) * max(up * readers, per_fresh * readers) + reader * up
        reads.append(np.column_stack((starts, starts + up * readers)))
    return Spans(
        steps=np.array(spans),
        marked=True,
        waits=np.array(waits),
        sees_waits=True,
        reads=tuple(reads),
        num_readers=readers,
        busy=merge(np.array(busy)),
        asynchronous=run_ahead,
        device_seen=run_ahead,
    )


@given(
    ratio=st.floats(0.1, 10),
    down=st.floats(1e-3, 1.0),
    echo=st.integers(1, 8),
    readers=st.integers(1, 8),
)
def test_ratio_is_exact_on_the_cost_model(ratio, down, echo, readers):
    result = breakdown(window(ratio * down, down, echo, readers))
    assert result.ratio == pytest.approx(ratio, rel=0.02)
    assert result.downstream_seconds == pytest.approx(down, rel=0.02)
    assert result.recommended_factor == pytest.approx(max(1.0, ratio), rel=0.02)
    assert result.bound == ("exact" if readers == 1 else "lower")  # they may share something
    assert result.complete


@given(cold=st.floats(1.0, 3.0), echo=st.integers(1, 8))
def test_steps_that_never_wait_count_where_the_trace_knows_them(cold, echo):
    spans = window(4.0, cold, echo, 1)
    result = breakdown(dataclasses.replace(spans, ready_step_seconds=1.0))
    assert result.downstream_seconds == 1.0
    assert result.ratio == pytest.approx(4.0, rel=0.02)
    # What training waited is what it waited.
    assert result.wait_seconds == breakdown(spans).wait_seconds


@given(ratio=st.floats(0.1, 0.9), down=st.floats(0.01, 1.0))
def test_ratio_is_right_when_the_host_runs_ahead(ratio, down):
    result = breakdown(window(ratio * down, down, 1, 1, run_ahead=True))
    assert result.downstream_seconds == pytest.approx(down, rel=0.02)
    assert result.ratio == pytest.approx(ratio, rel=0.02)


def test_wait_while_the_device_works_is_no_starvation():
    steps = np.array([(n * 1.0, n + 1.0) for n in range(10)])
    waits = np.array([(n, n + 0.9) for n in range(10)])
    busy = np.array([(0.0, 10.0)])
    spans = Spans(
        steps=steps, marked=True, waits=waits, sees_waits=True, busy=busy, asynchronous=True
    )
    result = breakdown(spans)
    assert result.wait_fraction == pytest.approx(0.9)
    assert result.starved_fraction == pytest.approx(0.0)
    assert result.downstream_seconds == pytest.approx(1.0)


def test_a_pause_changes_neither_time_per_step():
    spans = window(0.01, 0.1, 1, 1)
    steps, waits = spans.steps.copy(), spans.waits.copy()
    steps[20:] += 5.0
    steps[20, 0] -= 5.0
    waits[20:] += 5.0
    result = breakdown(Spans(**{**vars(spans), "steps": steps, "waits": waits}))
    assert result.downstream_seconds == pytest.approx(0.1, rel=0.02)


def test_steps_per_execution_are_counted_by_their_fetches():
    spans = window(0.02, 0.01, 1, 1)
    calls = np.column_stack((spans.steps[::4, 0], spans.steps[3::4, 1]))
    result = breakdown(Spans(**{**vars(spans), "steps": calls}))
    assert result.steps == 40
    assert result.step_seconds == pytest.approx(0.02, rel=0.05)
    assert result.downstream_seconds == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("bound", ["exact", "lower"])
def test_what_the_dataset_noted_of_reading_counts(bound):
    for echo in (1, 6):
        spans = window(0.4, 0.1, echo, 4)
        noted = dataclasses.replace(spans, upstream=Upstream(0.5, bound, 0.25))
        result = breakdown(noted)
        assert result.ratio == pytest.approx(5.0, rel=0.02)
        assert (result.bound, result.held_fraction) == (bound, 0.25)


def test_without_reads_the_wait_is_a_lower_bound():
    spans = window(0.03, 0.01, 1, 1)
    bare = Spans(**{**vars(spans), "reads": (), "num_readers": None})
    result = breakdown(bare)
    low, high = result.ratio_range
    assert result.bound == "lower"
    assert MISSING_READS in result.missing
    assert low <= 3.0 <= high * 1.05
    ahead = breakdown(Spans(**{**vars(bare), "works_ahead": True}))
    assert (ahead.bound, ahead.ratio) == ("exact", pytest.approx(3.0, rel=0.05))


def test_without_reads_and_waiting_r_is_at_most_one():
    spans = window(0.001, 0.01, 1, 1)
    result = breakdown(Spans(**{**vars(spans), "reads": (), "num_readers": None}))
    assert (result.bound, result.recommended_factor) == ("upper", 1.0)
    assert result.ratio == pytest.approx(1.0, rel=0.05)


def test_without_waits_the_device_gives_an_upper_bound():
    spans = Spans(
        steps=np.array([(n * 1.0, n + 1.0) for n in range(10)]),
        marked=True,
        busy=np.array([(n + 0.5, n + 1.0) for n in range(10)]),
        asynchronous=True,
    )
    result = breakdown(spans)
    assert missing_waits(result.backend) in result.missing
    assert math.isnan(result.wait_seconds)
    assert (result.bound, result.recommended_factor) == ("upper", 1.0)
    assert result.ratio == pytest.approx(2.0)


def test_no_steps_say_nothing():
    result = breakdown(Spans())
    assert result.steps == 0
    assert not result.complete
    assert result.recommended_factor == 1.0


@given(st.floats(1.0, 8.0))
def test_speedup_follows_the_cost_model(factor):
    result = breakdown(window(0.04, 0.01, 1, 1))
    assert result.speedup(factor) == pytest.approx(min(factor, 4.0), rel=0.05)


def test_counters_give_the_same_words():
    known = Upstream(0.2, "lower", 0.1)
    result = from_counters(steps=10, seconds=1.0, wait_seconds=0.5, upstream=known, num_readers=2)
    assert (result.origin, result.bound, result.held_fraction) == ("counters", "lower", 0.1)
    assert result.ratio == pytest.approx(4.0)
    assert result.starved_fraction == result.wait_fraction == 0.5
    empty = from_counters(steps=0, seconds=0.0, wait_seconds=0.0, upstream=None, num_readers=0)
    assert empty.recommended_factor == 1.0
    assert not empty.complete


def test_counters_of_a_training_whose_wait_nobody_sees():
    def counted(downstream_seconds):
        return from_counters(
            steps=10,
            seconds=1.0,
            wait_seconds=math.nan,
            upstream=Upstream(0.2, "exact", 0.0),
            num_readers=1,
            downstream_seconds=downstream_seconds,
        )

    assert counted(0.05).ratio == pytest.approx(4.0)
    assert math.isnan(counted(0.05).wait_fraction)
    assert MISSING_WORK in counted(None).missing


SPANS = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 20)), max_size=20)


def clocks(pairs):
    return np.array([(a, a + b) for a, b in pairs], dtype=float).reshape(-1, 2)


@given(SPANS, SPANS)
def test_overlap_is_that_of_a_clock_that_ticks(pairs, windows):
    spans, asked = clocks(pairs), clocks(windows)
    ticks = {t for a, b in spans.astype(int) for t in range(a, b)}
    counted = [sum(t in ticks for t in range(a, b)) for a, b in asked.astype(int)]
    assert overlap(merge(spans), asked) == pytest.approx(counted)


@given(
    st.floats(0.9, 1.2) | st.floats(0.0, 9.0),
    st.floats(0.0, 1.0),
    st.sampled_from(["exact", "lower", "upper"]),
)
def test_a_report_never_contradicts_itself(ratio, fraction, bound):
    found = StepBreakdown(
        steps=5,
        step_seconds=max(1.0, ratio) + 1.0,
        wait_seconds=fraction * (max(1.0, ratio) + 1.0),
        upstream_seconds=ratio,
        downstream_seconds=1.0,
        bound=bound,
        starved_fraction=fraction,
    )
    text = render(found)
    (factor,) = re.findall(r"echo factor   (\S+)", text)
    assert ("Input-bound" in text) == ("recommended" in text) == (float(factor) > 1.0)
    assert not ("Not input-bound: echoing" in text and fraction >= 0.05)
