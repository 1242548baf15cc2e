"""Tasks that fail are tried again, those that take too long are dropped: by the test's clock."""

import itertools
import os
import threading
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_echo.metering import Meter
from keras_echo.reading.prefetcher import Prefetcher, StoppedError


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


class Limit:
    """Five seconds for each step of a task."""

    seconds = 5.0

    def __init__(self, step=lambda task: task):
        self.step = step

    def error(self, task, seconds):
        return TimeoutError(f"{task} took {seconds:g} seconds")


def made(work, clock, **options):
    defaults = {"num_workers": 1, "window_size": 3, "idle_seconds": 0.01, "clock": clock}
    return Prefetcher(work, itertools.count(), **{**defaults, **options})


def take(prefetcher, num):
    return list(itertools.islice(prefetcher, num))


def awaited(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Stuck:
    """Does not return from some tasks, at their first `num_times`, before the gate is opened."""

    def __init__(self, *tasks, num_times=1):
        self.left = dict.fromkeys(tasks, num_times)
        self.begun, self.gate = threading.Event(), threading.Event()
        self.ended = []

    def __call__(self, task):
        if self.left.get(task, 0):
            self.left[task] -= 1
            self.begun.set()
            assert self.gate.wait(60)
            self.ended.append(task)
            return "late"
        return task


@pytest.mark.parametrize("ask", ["next", "await_next"])
def test_a_task_that_takes_too_long_fails_and_its_result_is_dropped(ask):
    work, clock, meter = Stuck(1), Clock(), Meter()
    kept = []

    def keeping(task, do):
        kept.append(do(task))
        return kept[-1]

    prefetcher = made(work, clock, limit=Limit(), watch=meter, through=keeping)
    assert next(prefetcher) == 0
    assert work.begun.wait(60)
    clock.seconds = 4.9
    assert not prefetcher.await_next(0.05)
    clock.seconds = 5.0
    if ask == "await_next":
        assert prefetcher.await_next(60)
    with pytest.raises(TimeoutError, match=r"^1 took 5 seconds$"):
        next(prefetcher)
    assert prefetcher.last_task == 1
    assert take(prefetcher, 2) == [2, 3]
    num_reads = meter.num_reads
    work.gate.set()
    awaited(lambda: work.ended == [1] and not prefetcher._dropped)
    assert meter.num_reads - num_reads <= 3  # of those read ahead
    assert take(prefetcher, 4) == [4, 5, 6, 7]
    prefetcher.stop()
    assert kept == [0, *range(2, len(kept) + 1)]
    assert meter.num_reads == len(kept)


def test_the_time_counts_for_each_step_of_a_task():
    """Who passes others on the way has as long for each."""
    clock, step, go_on = Clock(), [0], [threading.Event() for _ in range(4)]

    def work(task):
        for number in range(4):
            assert go_on[number].wait(60)
            step[0] += 1
        return task

    prefetcher = made(work, clock, limit=Limit(step=lambda task: step[0]))
    assert not prefetcher.await_next(0.0)
    for number in range(3):
        awaited(lambda: prefetcher._attempts)
        clock.seconds += 4
        assert not prefetcher.await_next(0.02)
        go_on[number].set()
        awaited(lambda number=number: step[0] == number + 1)
        assert not prefetcher.await_next(0.02)
    clock.seconds += 5
    with pytest.raises(TimeoutError, match=r"^0 took 5 seconds$"):
        next(prefetcher)
    for event in go_on:
        event.set()
    prefetcher.stop()


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_task_that_took_too_long_is_done_by_another_thread(num_workers):
    work, clock, meter = Stuck(0, 2), Clock(), Meter()
    prefetcher = made(
        work,
        clock,
        num_workers=num_workers,
        limit=Limit(),
        again=lambda error, num_failures: 0.0,
        watch=meter,
    )
    results = []
    consumer = threading.Thread(target=lambda: results.extend(take(prefetcher, 6)))
    consumer.start()
    while consumer.is_alive():
        clock.seconds += 1.0
        consumer.join(0.02)
    assert results == [0, 1, 2, 3, 4, 5]
    assert meter.num_retried >= 2
    work.gate.set()
    prefetcher.stop()


def test_stopping_waits_for_a_stuck_task_until_its_time_is_up():
    work, clock = Stuck(0), Clock()
    prefetcher = made(work, clock, limit=Limit(), again=lambda error, num_failures: 0.0)
    assert not prefetcher.await_next(0.01)
    assert work.begun.wait(60)
    stopping = threading.Thread(target=prefetcher.stop)
    stopping.start()
    clock.seconds = 4.9
    stopping.join(0.1)
    assert stopping.is_alive()
    clock.seconds = 5.0
    stopping.join(60)
    assert not stopping.is_alive()
    assert not work.ended
    assert take(prefetcher, 3) == [0, 1, 2]  # and nothing is lost
    work.gate.set()
    prefetcher.stop()


@settings(max_examples=40)
@given(
    failures=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    num_workers=st.integers(1, 4),
    window_size=st.integers(1, 6),
    times=st.integers(1, 3),
    num_before_stop=st.integers(0, 12),
)
def test_what_fails_is_tried_again_in_its_place(
    failures, num_workers, window_size, times, num_before_stop
):
    tries, lock, meter = Counter(), threading.Lock(), Meter()

    def work(task):
        with lock:
            tries[task] += 1
            if task < len(failures) and tries[task] <= failures[task]:
                raise OSError(task)
        return task

    prefetcher = Prefetcher(
        work,
        itertools.count(),
        num_workers=num_workers,
        window_size=window_size,
        again=lambda error, num_failures: 0.0 if num_failures <= times else None,
        watch=meter,
    )
    for task, num_failures in enumerate(failures):
        if task == num_before_stop:
            prefetcher.stop()
        if num_failures > times:
            with pytest.raises(OSError, match=str(task)):
                next(prefetcher)
        else:
            assert next(prefetcher) == task
        assert prefetcher.last_task == task
        assert tries[task] == min(num_failures, times) + 1
    prefetcher.stop()
    assert meter.num_retried == sum(min(num, times) for num in failures)


def test_a_try_waits_for_its_time_and_reading_in_sequence_waits_with_it():
    clock, tries = Clock(), []

    def work(task):
        tries.append((task, clock.seconds))
        if task == 1 and clock.seconds < 6:
            raise OSError("down")
        return task

    def again(error, num_failures):
        return 2.0**num_failures

    prefetcher = made(work, clock, again=again)
    assert next(prefetcher) == 0
    for seconds, num_tries in ((0.0, 2), (1.9, 2), (2.0, 3), (5.9, 3), (6.0, 6)):
        clock.seconds = seconds
        prefetcher.await_next(0.05)
        awaited(lambda num_tries=num_tries: len(tries) == num_tries)
    assert take(prefetcher, 3) == [1, 2, 3]
    assert tries[:6] == [(0, 0.0), (1, 0.0), (1, 2.0), (1, 6.0), (2, 6.0), (3, 6.0)]
    prefetcher.stop()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_stopping_ends_the_wait_for_another_try_and_loses_nothing(num_workers):
    clock, is_down = Clock(), True

    def work(task):
        if task == 0 and is_down:
            raise OSError("down")
        return task

    prefetcher = made(
        work, clock, num_workers=num_workers, again=lambda error, num: 100.0, idle_seconds=60.0
    )
    assert not prefetcher.await_next(0.05)
    awaited(lambda: prefetcher._waiting)
    prefetcher.stop()
    assert not prefetcher._readers | prefetcher._leaving
    is_down = False
    clock.seconds = 100.0
    assert take(prefetcher, 4) == [0, 1, 2, 3]
    prefetcher.stop()


class StuckElsewhere:
    """In its process: notes that task 1 began, and at first does not return from it."""

    def __init__(self, directory):
        self.begun = directory / "begun"
        self.gate = directory / "gate"

    def __call__(self, task):
        if task == 1 and not self.begun.exists():
            self.begun.touch()
            time.sleep(600)
        return os.getpid(), task

    def __setstate__(self, state):
        self.__dict__ = state
        while not self.gate.exists():
            time.sleep(0.01)


def test_a_process_that_takes_too_long_is_killed_and_its_start_takes_no_time(tmp_path):
    work, clock = StuckElsewhere(tmp_path), Clock()
    prefetcher = made(
        work,
        clock,
        use_processes=True,
        limit=Limit(),
        again=lambda error, num_failures: 0.0 if num_failures == 1 else None,
        idle_seconds=60.0,
    )
    assert not prefetcher.await_next(0.01)
    awaited(lambda: prefetcher._attempts)
    clock.seconds = 1000.0  # while it imports
    assert not prefetcher.await_next(0.05)
    work.gate.touch()
    first, task = next(prefetcher)
    assert task == 0
    awaited(work.begun.exists)
    assert not prefetcher.await_next(0.05)
    clock.seconds += 5.0
    assert not prefetcher.await_next(0.0)
    awaited(lambda: not is_running(first))
    second, task = next(prefetcher)
    assert task == 1
    assert second != first
    assert [task for _, task in take(prefetcher, 2)] == [2, 3]
    prefetcher.stop()


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class DiesOnce:
    """Ends its process at the first try of task 1."""

    def __init__(self, directory):
        self.died = directory / "died"

    def __call__(self, task):
        if task == 1 and not self.died.exists():
            self.died.touch()
            os._exit(3)
        return task


def test_a_task_whose_process_died_is_done_in_another_one(tmp_path):
    errors = []

    def again(error, num_failures):
        errors.append(str(error))
        return 0.0

    prefetcher = made(
        DiesOnce(tmp_path), time.monotonic, use_processes=True, again=again, idle_seconds=10.0
    )
    assert take(prefetcher, 3) == [0, 1, 2]
    prefetcher.stop()
    assert len(errors) == 1
    assert "must stay alive while it reads. Received: 'exit code 3'." in errors[0]


@pytest.mark.parametrize("ask", ["next", "await_next"])
def test_a_wait_can_be_interrupted_and_loses_nothing(ask):
    work, is_interrupted = Stuck(0), [False, False, True]
    prefetcher = made(
        work, Clock(), is_interrupted=lambda: bool(is_interrupted) and is_interrupted.pop(0)
    )
    with pytest.raises(StoppedError, match=r"^Ctrl-C was pressed while a batch was waited for\.$"):
        next(prefetcher) if ask == "next" else prefetcher.await_next(60)
    assert not is_interrupted
    work.gate.set()
    assert take(prefetcher, 3) == ["late", 1, 2]
    prefetcher.stop()
