"""t_upstream from reads that the test makes up, and from readers in virtual time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import Readers

from keras_echo.metering import Read
from keras_echo.profiling.measuring.upstream import upstream

TIMES = st.floats(1e-3, 10.0)


def in_rounds(num_rounds, seconds, num_readers, **state):
    """Readers that begin and end together."""
    return [
        Read(number * seconds, seconds, **state)
        for number in range(num_rounds)
        for _ in range(num_readers)
    ]


@given(num_readers=st.integers(1, 8), num_rounds=st.integers(2, 6), per_batch=TIMES)
@pytest.mark.parametrize("may_read_ahead", [False, True])
def test_readers_that_never_rest_deliver_one_batch_in_their_share_of_a_read(
    num_readers, num_rounds, per_batch, may_read_ahead
):
    reads = in_rounds(num_rounds, per_batch * num_readers, num_readers)
    found = upstream(reads, num_readers, may_read_ahead=may_read_ahead)
    assert (found.bound, found.held_fraction) == ("exact", 0.0)
    assert found.seconds == pytest.approx(per_batch)


@given(num_readers=st.integers(2, 8), read=TIMES, slower=st.floats(1.5, 5))
def test_what_is_delivered_counts_where_reads_alone_promise_more(num_readers, read, slower):
    """Readers that wait for one another: in order, behind a slow one."""
    per_batch = slower * read / num_readers
    reads = [Read(number * per_batch - read, read) for number in range(40)]
    found = upstream(reads, num_readers, may_read_ahead=False)
    assert found.bound == "exact"
    assert found.seconds == pytest.approx(per_batch)


@given(num_readers=st.integers(2, 8), per_batch=TIMES, share=st.floats(0.15, 0.9))
def test_readers_that_were_held_show_the_least_that_a_batch_costs(num_readers, per_batch, share):
    seconds, every = per_batch * num_readers, per_batch / (1 - share)
    reads = [
        Read(number * every - seconds, seconds, held_seconds=number * share * every)
        for number in range(40)
    ]
    found = upstream(reads, num_readers, may_read_ahead=False)
    assert found.bound == "lower"
    assert found.seconds == pytest.approx(per_batch)
    assert found.held_fraction == pytest.approx(share)
    # Half as long reads: they wait for one another as well.
    waiting = [read._replace(start=read.end - seconds / 2, seconds=seconds / 2) for read in reads]
    assert upstream(waiting, num_readers, may_read_ahead=False).seconds == pytest.approx(per_batch)


@given(read=TIMES, share=st.floats(0.1, 0.9))
def test_one_reader_s_reads_take_as_long_whether_it_rests_or_not(read, share):
    every = read / (1 - share)
    reads = [Read(n * every, read, held_seconds=n * share * every) for n in range(20)]
    assert upstream(reads, 1, may_read_ahead=False)[:2] == (pytest.approx(read), "exact")
    # What lies ready in a source is read in no time.
    assert upstream(reads, 1, may_read_ahead=True).bound == "lower"


def test_a_source_that_reads_ahead_counts_from_when_its_reader_no_longer_rests():
    held = [Read(n * 1.0, 0.001, held_seconds=0.999 * n) for n in range(20)]
    end = held[-1].end
    busy = [Read(end + n * 2.0, 2.0, held_seconds=held[-1].held_seconds) for n in range(12)]
    assert upstream(held, 1, may_read_ahead=True)[:2] == (pytest.approx(0.001), "lower")
    found = upstream(held + busy, 1, may_read_ahead=True)
    assert found[:2] == (pytest.approx(2.0, rel=0.1), "exact")


def test_the_first_read_of_each_reader_is_left_out():
    spawned = [Read(0.0, 30.0, is_first=True), Read(0.0, 30.5, is_first=True)]
    reads = [Read(30.5 + number, 2.0) for number in range(8)]
    assert upstream(spawned + reads, 2, may_read_ahead=False)[:2] == (1.0, "exact")
    assert upstream(spawned, 2, may_read_ahead=False)[:2] == (pytest.approx(15.125), "lower")


def test_no_reads_tell_nothing():
    assert upstream([], 1, may_read_ahead=False) is None


@settings(max_examples=25, deadline=None, derandomize=True)
@given(num_readers=st.integers(1, 6), window_size=st.integers(1, 20), seed=st.integers(0, 99))
def test_uneven_reads_are_delivered_as_fast_as_somebody_gets_them_who_takes_all(
    num_readers, window_size, seed
):
    seconds = np.random.default_rng(seed).lognormal(0.0, 1.0, 2000).tolist()
    readers = Readers(seconds, num_readers, window_size)
    for _ in range(1000):
        next(readers)
    found = upstream(readers.reads, num_readers, may_read_ahead=False)
    assert found.bound == "exact"
    assert found.seconds == pytest.approx(readers.now / 1000, rel=0.05)
