"""Remedies: the right one first, and what it brings."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.adapting.remedies import remedies
from keras_echo.profiling.measuring.reading import Reading, Setup
from keras_echo.profiling.measuring.result import StepBreakdown
from keras_echo.reading.reader_count import MOST_WAITING

STEP = 0.02  # seconds
SETUP = Setup(
    num_readers=1,
    queue_size=10,
    num_cores=4,
    is_sequential=False,
    is_auto=False,
    uses_processes=False,
    can_be_cached=True,
    num_batches=1e9,
    batch_bytes=1e6,
    free_bytes=8e9,
)


def found(read_seconds, compute_seconds=0.0, *, setup=SETUP, up=None, bound="exact", **known):
    """What is measured where each of the readers takes so long, and training 20 ms."""
    up = read_seconds / setup.num_readers if up is None else up
    return StepBreakdown(
        steps=10,
        step_seconds=max(up, STEP),
        wait_seconds=max(0.0, up - STEP),
        upstream_seconds=up,
        downstream_seconds=STEP,
        bound=bound,
        reading=Reading(setup, read_seconds, compute_seconds, **{"locked_seconds": 0.0, **known}),
    )


def with_(**changes):
    return dataclasses.replace(SETUP, **changes)


def kinds(breakdown, **options):
    return [remedy.kind for remedy in remedies(breakdown, **options)]


def test_reads_that_wait_get_as_many_readers_as_it_takes():
    first, echo = remedies(found(0.08))
    assert first.kind == "readers"
    assert first.change == "5 readers instead of 1"  # four would be just as fast as training
    assert first.ratio == pytest.approx(0.8)
    assert first.fresh_per_second == first.steps_per_second == pytest.approx(50)
    assert "don't share" in first.provided  # one reader doesn't tell
    assert "workers=5" in first.how
    assert echo.kind == "echo"
    assert echo.change == "each batch used 4.0 times"
    assert (echo.ratio, echo.fresh_per_second) == (pytest.approx(4), pytest.approx(12.5))
    assert echo.steps_per_second == pytest.approx(50)


def test_what_half_of_them_delivered_says_whether_more_help():
    setup = with_(num_readers=16)
    known = {"fewer_readers": 8, "usual_seconds": 0.04}
    alone = remedies(found(0.64, setup=setup, fewer_seconds=0.08, **known))[0]
    assert (alone.kind, alone.provided) == ("readers", "")
    assert alone.ratio <= 1.03
    sharing = found(0.64, setup=setup, fewer_seconds=0.04, **known)
    assert "readers" not in kinds(sharing)


def test_a_shared_line_gets_a_cache_for_what_fits():
    setup = with_(num_readers=4, num_batches=8000)  # 8 GB, and 8 GB are free: half of that is used
    known = {"fewer_readers": 2, "fewer_seconds": 0.06, "usual_seconds": 0.06}
    first = remedies(found(0.24, setup=setup, **known))[0]
    assert first.kind == "cache"
    assert first.change == "a cache for 50% of a pass"
    assert "memory_bytes=4000000000" in first.how
    assert first.ratio == pytest.approx(1.5)
    assert first.fresh_per_second == pytest.approx(1 / 0.03)


def test_reads_that_compute_get_processors():
    first = remedies(found(0.08, 0.08, setup=with_(num_cores=2)))[0]
    assert first.change == "2 readers instead of 1"
    assert first.ratio == pytest.approx(2)


def test_python_code_gets_processes():
    setup = with_(num_readers=2, num_cores=2)
    known = {"fewer_readers": 1, "fewer_seconds": 0.09, "usual_seconds": 0.09}
    first = remedies(found(0.18, 0.09, up=0.09, setup=setup, locked_seconds=0.09, **known))[0]
    assert first.kind == "processes"
    assert "use_multiprocessing=True" in first.how
    assert first.fresh_per_second == pytest.approx(1 / 0.045)


def test_python_code_that_keeps_training_from_the_lock_gets_processes_too():
    setup = with_(num_readers=2, num_cores=2)
    slowed = dataclasses.replace(
        found(0.18, 0.09, up=0.09, setup=setup, locked_seconds=0.09), downstream_seconds=0.11
    )
    (first,) = remedies(slowed)
    assert first.kind == "processes"
    assert "45 ms at most" in first.provided
    assert first.fresh_per_second == pytest.approx(1 / 0.045)
    harmless = found(0.008, 0.008, up=0.008, locked_seconds=0.008)
    assert remedies(harmless) == []


def test_bursts_get_a_longer_queue_though_reading_is_fast_enough():
    breakdown = found(0.018, longer_queue=40.0, longer_queue_seconds=0.0205, queue_seconds=0.032)
    (first,) = remedies(breakdown)
    assert (first.kind, first.change) == ("queue", "40 batches read ahead instead of 10")
    assert first.fresh_per_second == pytest.approx(1 / 0.0205)


def test_a_sequence_that_waits_and_computes_in_turn_gets_its_augmentation_behind_the_echo():
    setup = with_(is_sequential=True, can_be_cached=False)
    first = remedies(found(0.04, 0.015, setup=setup))[0]
    assert first.kind == "augment"
    assert first.fresh_per_second == pytest.approx(1 / 0.025)


def test_a_sequence_that_computes_is_to_do_so_in_parallel():
    setup = with_(is_sequential=True, can_be_cached=False)
    assert kinds(found(0.08, 0.076, setup=setup)) == ["source", "echo"]


def test_a_number_of_readers_that_follows_needs_no_advice():
    assert kinds(found(0.08, setup=with_(is_auto=True))) == ["echo"]


def test_nothing_to_gain():
    assert remedies(found(0.005)) == []
    assert remedies(found(0.0205)) == []  # that is noise
    assert remedies(found(0.08, bound="upper")) == []
    assert remedies(found(math.nan)) == []


def test_where_reads_are_not_known_echoing_is():
    assert kinds(dataclasses.replace(found(0.08), reading=None)) == ["echo"]


def test_a_dearer_remedy_comes_first_where_it_brings_half_as_much_again():
    fits = with_(num_batches=1000, num_cores=2)
    assert kinds(found(0.08, 0.08, setup=fits)) == ["cache", "readers", "echo"]
    assert kinds(found(0.08, setup=fits)) == ["readers", "cache", "echo"]


def test_echoing_stops_at_the_most():
    echo = remedies(found(0.4), max_factor=8.0)[-1]
    assert echo.change == "each batch used 8.0 times"
    assert echo.steps_per_second == pytest.approx(20)


@given(
    st.floats(0.001, 5.0),
    st.floats(0.0, 1.0),
    st.integers(1, 64),
    st.integers(1, 16),
    st.booleans(),
    st.booleans(),
    st.floats(0.0, 1.0),
    st.floats(0.3, 1.0),
)
def test_each_brings_a_tenth_more_fresh_batches_at_least_and_echoing_comes_last(
    read_seconds, compute, num_readers, num_cores, is_sequential, processes, locked, speedup
):
    setup = with_(
        num_readers=1 if is_sequential else num_readers,
        num_cores=num_cores,
        is_sequential=is_sequential,
        uses_processes=processes and not is_sequential,
        num_batches=10_000,
    )
    up = read_seconds / setup.num_readers
    breakdown = found(
        read_seconds,
        compute * read_seconds,
        setup=setup,
        locked_seconds=locked * compute * up,
        fewer_readers=max(1, setup.num_readers // 2),
        fewer_seconds=up / speedup,
        usual_seconds=up,
    )
    ranked = remedies(breakdown)
    now = 1 / max(up, STEP)
    assert all(
        remedy.fresh_per_second >= 1.0999 * now for remedy in ranked if remedy.kind != "echo"
    )
    assert all(
        remedy.fresh_per_second <= 1 / STEP + 1e-9
        for remedy in ranked
        if remedy.kind != "processes"
    )
    assert [remedy.kind for remedy in ranked].count("echo") == (breakdown.ratio > 1.05)
    assert "echo" not in [remedy.kind for remedy in ranked[:-1]]
    for remedy in ranked:
        if remedy.kind == "readers":
            assert setup.num_readers < int(remedy.change.split()[0]) <= max(MOST_WAITING, num_cores)
