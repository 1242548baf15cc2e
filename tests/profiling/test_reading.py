"""What reads consist of: computing and waiting, and what a longer queue would bring."""

import math
import random
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.metering import Read
from keras_echo.profiling.measuring.queue import NONE, between, longer_queue
from keras_echo.profiling.measuring.reading import Reading, Setup, reading
from keras_echo.profiling.recording.lock_sampler import LockSampler

SETUP = Setup(
    num_readers=2,
    queue_size=10,
    num_cores=4,
    is_sequential=False,
    is_auto=False,
    uses_processes=False,
    can_be_cached=True,
)


def reads(*seconds, computed=0.0):
    ends = np.cumsum(seconds)
    return [
        Read(end - one, one, compute_seconds=computed)
        for one, end in zip(seconds, ends, strict=True)
    ]


def test_a_read_computes_and_waits():
    first = Read(0.0, 5.0, is_first=True)  # started a process: tells of no other
    found = reading([first, *reads(0.1, 0.3, computed=0.05)], SETUP, locked_fraction=0.1)
    assert found.read_seconds == pytest.approx(0.2)
    assert found.compute_seconds == pytest.approx(0.05)
    assert found.waiting_fraction == pytest.approx(0.75)
    assert found.locked_seconds == pytest.approx(0.1 * 0.3)  # from one end to the next


def test_the_lock_that_others_hold_is_not_the_reads():
    found = reading(reads(0.1, 0.1, computed=0.01), SETUP, locked_fraction=0.9)
    assert found.locked_seconds == pytest.approx(0.01)


def test_without_reads_nothing_is_known():
    assert reading([], SETUP) is None


def test_fewer_readers_count_only_beside_all_of_them():
    def compared(*trials):
        found = reading(reads(0.1, 0.1), SETUP, trials=trials)
        return found.fewer_readers, found.fewer_seconds, found.usual_seconds

    assert compared((1, 0.2), (2, 0.1)) == (1, 0.2, 0.1)
    assert all(map(math.isnan, compared((1, 0.2))))
    assert all(map(math.isnan, compared((2, 0.2), (4, 0.1))))


@given(
    st.builds(
        Reading,
        st.builds(
            Setup,
            *[st.integers(1, 100)] * 3,
            *[st.booleans()] * 4,
            *[st.just(math.nan) | st.floats(0, 1e12)] * 3,
        ),
        *[st.floats(0, 1e3)] * 2,
        *[st.just(math.nan) | st.floats(0, 1e3)] * 6,
    )
)
def test_as_stats_and_back(found):
    assert repr(Reading.from_stats(found.as_stats())) == repr(found)  # NaN isn't equal to NaN


def test_stats_of_another_version_are_none():
    stats = reading(reads(0.1), SETUP).as_stats()
    del stats["num_cores"]
    assert Reading.from_stats(stats) is None
    assert Reading.from_stats({}) is None


steady = st.floats(0.001, 10.0)


@given(steady, st.integers(1, 8), st.integers(1, 20), steady)
def test_steady_reads_need_no_longer_queue(seconds, num_readers, queue_size, step_seconds):
    durations = [seconds] * 200
    assert longer_queue(durations, num_readers, queue_size, step_seconds) == NONE
    slower = max(seconds / num_readers, step_seconds)
    found = between(durations, num_readers, max(queue_size, num_readers), step_seconds)
    assert found == pytest.approx(slower, rel=0.1)


@given(
    st.lists(st.floats(0.001, 1.0), min_size=30, max_size=100),
    st.integers(1, 8),
    st.integers(8, 20),
    steady,
)
def test_a_longer_queue_is_never_worse(durations, num_readers, queue_size, step_seconds):
    short = between(durations, num_readers, queue_size, step_seconds)
    long = between(durations, num_readers, 2 * queue_size, step_seconds)
    # The first batch comes at the same time with both, since nothing is held back before.
    assert long <= short + 1e-9


def test_bursts_need_a_queue_as_long_as_they_are():
    """49 reads of 4 ms and one of 800 ms: 40 steps of 20 ms, which 10 batches don't cover."""
    durations = [0.8 if number % 50 == 49 else 0.004 for number in range(400)]
    found = longer_queue(durations, 1, 10, 0.02)
    assert found.size == 40
    assert found.seconds == pytest.approx(0.02, rel=0.05)
    assert found.usual_seconds > 1.3 * found.seconds
    assert longer_queue(durations, 1, 10, 0.02, most=20) != found  # where no more fit


def test_a_queue_does_not_help_where_reading_is_slower_on_the_whole():
    durations = [4.0 if number % 5 else 0.25 for number in range(400)]
    assert longer_queue(durations, 1, 10, 1.0) == NONE


def held_for(work):
    """Share of the time in which the interpreter's lock is held while a thread does `work`."""
    is_over = threading.Event()

    def run():
        while not is_over.is_set():
            work()

    thread = threading.Thread(target=run)
    thread.start()
    lock = LockSampler()
    lock.start()
    while lock._num_samples < 30:
        time.sleep(0.01)
    lock.stop()
    is_over.set()
    thread.join()
    return lock.fraction


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="POSIX alone counts it")
def test_python_code_holds_the_lock_and_numpy_does_not():
    numbers = np.random.default_rng(0).random(100_000)
    assert held_for(lambda: sum(range(2000))) > 0.8
    assert held_for(lambda: np.sort(numbers)) < 0.3
    assert held_for(lambda: time.sleep(0.01)) < 0.3


def test_the_sampler_leaves_the_users_random_numbers_alone():
    random.seed(0)
    state = random.getstate()
    lock = LockSampler()
    lock.start()
    assert math.isnan(lock.fraction)  # too few to tell
    while math.isnan(lock.fraction):
        time.sleep(0.001)
    lock.stop()
    assert random.getstate() == state
