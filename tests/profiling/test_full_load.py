import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.profiling.measuring.full_load import full_load_seconds

TIMES = st.floats(1e-3, 10.0)


def together(start, seconds, num_readers):
    return [(start, seconds)] * num_readers


@given(num_readers=st.integers(1, 8), num_rounds=st.integers(1, 5), per_batch=TIMES, start=TIMES)
def test_reads_at_full_load_cost_their_time_over_the_readers(
    num_readers, num_rounds, per_batch, start
):
    seconds = per_batch * num_readers
    reads = [
        read
        for number in range(num_rounds)
        for read in together(start + number * seconds, seconds, num_readers)
    ]
    assert full_load_seconds(reads, num_readers) == pytest.approx(per_batch)


@given(
    num_readers=st.integers(2, 8),
    alone=st.lists(TIMES, max_size=5),
    per_batch=TIMES,
    seed=st.integers(0, 99),
)
def test_reads_that_had_the_source_to_themselves_do_not_count(num_readers, alone, per_batch, seed):
    seconds = per_batch * num_readers
    reads = together(0.0, seconds, num_readers)
    begin = seconds
    for read in alone:
        reads.append((begin, read))
        begin += 2 * read
    np.random.default_rng(seed).shuffle(reads)
    assert full_load_seconds([tuple(read) for read in reads], num_readers) == pytest.approx(
        per_batch
    )


@given(num_readers=st.integers(2, 8), offset=st.floats(0.0, 0.9), per_batch=TIMES)
def test_readers_need_not_start_together(num_readers, offset, per_batch):
    seconds = per_batch * num_readers
    reads = [
        (offset * per_batch * reader + number * seconds, seconds)
        for reader in range(num_readers)
        for number in range(4)
    ]
    assert full_load_seconds(reads, num_readers) == pytest.approx(per_batch)


def test_too_few_reads_at_full_load_tell_nothing():
    assert full_load_seconds([], 1) is None
    assert full_load_seconds([(0.0, 1.0)], 2) is None
    assert full_load_seconds([(0.0, 1.0), (2.0, 1.0), (4.0, 1.0)], 2) is None
    assert full_load_seconds([(0.0, 1.0), (0.5, 1.0)], 2) is None  # half of each
    assert full_load_seconds([(0.0, 0.0)], 1) is None
