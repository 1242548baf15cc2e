import contextlib
import itertools
import operator
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_echo.metering import Meter
from keras_echo.reading.prefetcher import THREAD_NAME, Prefetcher, StoppedError
from keras_echo.reading.stream import Barrier


def take(prefetcher, num):
    return list(itertools.islice(prefetcher, num))


@settings(max_examples=30, deadline=None)
@given(num_workers=st.integers(1, 8), window_size=st.integers(1, 8), num=st.integers(1, 60))
def test_keeps_the_order_and_the_bounds(num_workers, window_size, num):
    running, most, ahead = set(), 0, 0
    consumed, lock = 0, threading.Lock()

    def work(task):
        nonlocal most, ahead
        with lock:
            running.add(task)
            most, ahead = max(most, len(running)), max(ahead, task - consumed + 1)
        time.sleep(0.0001 * (task % 3))
        with lock:
            running.remove(task)
        return task * 10

    prefetcher = Prefetcher(
        work, itertools.count(), num_workers=num_workers, window_size=window_size
    )
    results = []
    for result in itertools.islice(prefetcher, num):
        results.append(result)
        consumed += 1
    prefetcher.stop()
    assert results == [task * 10 for task in range(num)]
    assert most <= num_workers
    # One more than the window: a result leaves it a moment before the test counts it.
    assert ahead <= max(window_size, num_workers) + 1


def test_reads_in_parallel():
    all_at_once = threading.Barrier(4, timeout=10)
    prefetcher = Prefetcher(
        lambda task: all_at_once.wait() >= 0, itertools.count(), num_workers=4, window_size=4
    )
    assert all(take(prefetcher, 8))
    all_at_once.abort()
    prefetcher.stop()


def test_errors_are_raised_in_their_place():
    def work(task):
        if task in (2, 3):
            raise OSError(task)
        return task

    prefetcher = Prefetcher(work, itertools.count(), num_workers=3, window_size=5)
    assert take(prefetcher, 2) == [0, 1]
    for failed in (2, 3):
        with pytest.raises(OSError, match=str(failed)):
            next(prefetcher)
    assert take(prefetcher, 2) == [4, 5]
    prefetcher.stop()


@pytest.mark.parametrize("use_processes", [False, True])
def test_what_stands_between_may_do_without_the_task(use_processes):
    threads = set()

    def odd_ones_only(task, work):
        threads.add(threading.current_thread().name)
        return work(task) if task % 2 else "even"

    prefetcher = Prefetcher(
        operator.neg,
        itertools.count(),
        num_workers=2,
        window_size=4,
        use_processes=use_processes,
        through=odd_ones_only,
    )
    assert take(prefetcher, 6) == ["even", -1, "even", -3, "even", -5]
    assert threads == {THREAD_NAME}
    prefetcher.stop()


def test_errors_of_what_stands_between_are_raised_in_their_place():
    prefetcher = Prefetcher(
        lambda task: task,
        itertools.count(1),
        num_workers=1,
        window_size=2,
        through=lambda task, work: work(6 // (task - 2)),
    )
    assert next(prefetcher) == -6
    with pytest.raises(ZeroDivisionError):
        next(prefetcher)
    assert take(prefetcher, 2) == [6, 3]
    prefetcher.stop()


def test_stopping_loses_nothing():
    prefetcher = Prefetcher(lambda task: task, itertools.count(), num_workers=3, window_size=5)
    served = []
    for _ in range(50):
        served += take(prefetcher, 2)
        prefetcher.stop()
        assert not [t for t in threading.enumerate() if t.name.startswith("keras_echo")]
    assert served == list(range(100))


def test_readers_without_work_end_by_themselves():
    prefetcher = Prefetcher(
        lambda task: task, itertools.count(), num_workers=3, window_size=5, idle_seconds=0.01
    )
    assert take(prefetcher, 2) == [0, 1]
    deadline = time.monotonic() + 10
    while [t for t in threading.enumerate() if t.name.startswith("keras_echo")]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert take(prefetcher, 20) == list(range(2, 22))
    prefetcher.stop()


def test_stopping_wakes_who_waits():
    release = threading.Event()
    prefetcher = Prefetcher(
        lambda task: release.wait(10), itertools.count(), num_workers=1, window_size=1
    )
    stopper = threading.Timer(0.05, prefetcher.stop, kwargs={"wait": False})
    stopper.start()
    with pytest.raises(StoppedError, match="closed while a batch was waited for"):
        next(prefetcher)
    release.set()
    assert next(prefetcher) is True  # the read that was under way isn't lost
    prefetcher.stop()


def test_a_stall_is_named_and_passes():
    clockwork = threading.Event()
    threading.Timer(0.5, clockwork.set).start()
    prefetcher = Prefetcher(
        lambda task: clockwork.wait(10),
        itertools.count(),
        num_workers=1,
        window_size=1,
        idle_seconds=0.1,
        stall_seconds=0.2,
    )
    with (
        pytest.warns(RuntimeWarning, match=r"Training has waited 0 seconds for the source"),
        pytest.warns(RuntimeWarning, match=r"The source delivered a batch after [01] seconds\. Tr"),
    ):
        assert next(prefetcher) is True
    prefetcher.stop()


@pytest.mark.parametrize("num_workers", [1, 4])
def test_a_barrier_separates_what_is_before_from_what_is_behind(num_workers):
    log = []

    def tasks():
        for number in itertools.count():
            for place in range(5):
                yield (number, place)
            yield Barrier(lambda number=number: log.append(("barrier", number)))

    def work(task):
        time.sleep(0.001)
        log.append(task)
        return task

    prefetcher = Prefetcher(work, tasks(), num_workers=num_workers, window_size=8)
    assert take(prefetcher, 23) == [(n // 5, n % 5) for n in range(23)]
    prefetcher.stop()
    for number in range(4):
        at = log.index(("barrier", number))
        assert {task for task in log[:at] if task[0] != "barrier"} == {
            (before, place) for before in range(number + 1) for place in range(5)
        }


def test_measures_every_task():
    ticks = itertools.count()
    meter = Meter(clock=lambda: float(next(ticks)))  # every look at the clock is a second later
    prefetcher = Prefetcher(
        lambda task: task, itertools.count(), num_workers=1, window_size=3, watch=meter
    )
    take(prefetcher, 5)
    prefetcher.stop()
    assert meter.num_reads >= 5
    assert meter.read_seconds >= meter.num_reads
    firsts = [read.is_first for read in meter.recent_reads()]
    assert firsts == [True] + [False] * (len(firsts) - 1)


def test_rest_counts_apart_while_nobody_trains():
    now = 0.0
    meter = Meter(clock=lambda: now)
    for seconds, tell in (
        (1.0, lambda: meter.held(0.0)),  # nobody had asked before
        (2.0, lambda: meter.held(0.5)),
        (4.0, meter.pause),
        (8.0, lambda: meter.held(1.0)),
        (16.0, meter.pause),
        (32.0, meter.resume),
        (64.0, meter.resume),
        (128.0, lambda: meter.held(0.0)),
    ):
        now += seconds
        tell()
    with meter.reading():
        now += 1.0
    (read,) = meter.recent_reads()
    assert read.held_seconds == meter.held_seconds == 1.0 + 0.5 * 4 + 64 + 128
    assert read.paused_seconds == 0.5 * 8 + 16 + 32


class Told:
    """Notes what a prefetcher tells it."""

    def __init__(self):
        self.events = []

    def reading(self):
        return contextlib.nullcontext(SimpleNamespace())

    @property
    def share(self):
        return next(event for event in reversed(self.events) if isinstance(event, float))

    def held(self, share):
        self.events.append(share)

    def missed(self):
        self.events.append("missed")

    def took(self):
        self.events.append("took")

    def retried(self):
        self.events.append("retried")


def awaited(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_it_tells_who_waits_for_whom():
    """Two readers and a window of three; each read ends when the test says so."""
    gates, told = [threading.Event() for _ in range(9)], Told()
    prefetcher = Prefetcher(
        lambda task: gates[task].wait(30) and task,
        iter(range(9)),
        num_workers=2,
        window_size=3,
        watch=told,
    )
    assert told.events == []
    assert not prefetcher.await_next(0.01)  # readers start only for who asks
    awaited(lambda: told.events[-1] == 0.0)
    assert told.events == ["missed", 0.0] or told.events == [1.0, "missed", 0.0]
    told.events.clear()
    gates[1].set()  # the window is full with 0, 1 and 2, and 0 isn't done: reading's own affair
    awaited(lambda: prefetcher._num_done == 1)
    assert told.events == []
    gates[0].set()
    gates[2].set()
    awaited(lambda: told.events[-1:] == [1.0])
    assert told.events in ([0.5, 1.0], [1.0])
    assert prefetcher.is_crowded()
    assert next(prefetcher) == 0
    awaited(lambda: told.events[-1] == 0.5)  # one of two has room
    assert "took" in told.events
    assert "missed" not in told.events  # it was asked for before
    for gate in gates:
        gate.set()
    assert take(prefetcher, 6) == [1, 2, 3, 4, 5, 6]
    prefetcher.stop()


def test_at_a_barrier_readers_are_held_until_the_consumer_comes():
    told = Told()
    tasks = iter([0, 1, Barrier(lambda: None), 2, 3])
    prefetcher = Prefetcher(lambda task: task, tasks, num_workers=1, window_size=8, watch=told)
    assert next(prefetcher) == 0
    awaited(lambda: told.share == 1.0)  # 1 lies ready, and 2 may not be read before it is taken
    assert take(prefetcher, 2) == [1, 2]
    prefetcher.stop()
    assert 0.0 in told.events  # while 2 was read


class Remote:
    """Pickled into worker processes."""

    def __init__(self):
        self.offset = 0

    def __call__(self, task):
        if task == 3:
            raise KeyError("three")
        if task == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid(), task + self.offset


@pytest.mark.parametrize("num_workers", [1, 2])
def test_processes_work_elsewhere_and_errors_come_home(num_workers):
    prefetcher = Prefetcher(
        Remote(), itertools.count(), num_workers=num_workers, window_size=3, use_processes=True
    )
    results = take(prefetcher, 3)
    assert [task for _, task in results] == [0, 1, 2]
    assert os.getpid() not in {pid for pid, _ in results}
    with pytest.raises(KeyError, match="three") as caught:
        next(prefetcher)
    assert "In the worker process:\nTraceback" in caught.value.__notes__[0]
    assert next(prefetcher)[1] == 4
    with pytest.raises(
        RuntimeError, match=r"must stay alive while it reads\. Received: 'exit code -9'"
    ):
        next(prefetcher)
    assert next(prefetcher)[1] == 6
    prefetcher.stop()


def test_a_barrier_renews_the_copies_in_processes():
    remote = Remote()
    tasks = iter([0, 1, Barrier(lambda: setattr(remote, "offset", 100)), 0, 1, *[9] * 100])
    prefetcher = Prefetcher(remote, tasks, num_workers=1, window_size=2, use_processes=True)
    assert [task for _, task in take(prefetcher, 4)] == [0, 1, 100, 101]
    prefetcher.stop()


def test_a_thread_that_does_not_start_is_not_counted_on(monkeypatch):
    prefetcher = Prefetcher(lambda task: task, itertools.count(), num_workers=2, window_size=2)
    start = threading.Thread.start
    num_left = 0

    def refuses(thread):
        nonlocal num_left
        if num_left == 0:
            raise RuntimeError("can't start new thread")
        num_left -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuses)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        next(prefetcher)
    num_left = 1  # of two
    assert take(prefetcher, 3) == [0, 1, 2]
    monkeypatch.undo()
    assert take(prefetcher, 3) == [3, 4, 5]
    prefetcher.stop()


def test_a_single_reader_is_single_beside_one_that_leaves():
    """Of two at a time, both would ask the same iterator."""
    running, most, begun, release = 0, 0, threading.Event(), threading.Event()

    def work(task):
        nonlocal running, most
        running += 1
        most = max(most, running)
        begun.set()
        release.wait(10)
        running -= 1
        return task

    prefetcher = Prefetcher(work, itertools.count(), num_workers=1, window_size=3)
    taken = []
    consumer = threading.Thread(target=lambda: taken.extend(take(prefetcher, 4)))
    threading.Timer(0.05, lambda: begun.wait(10) and prefetcher.stop(wait=False)).start()
    with pytest.raises(StoppedError):
        next(prefetcher)
    consumer.start()
    time.sleep(0.05)
    release.set()
    consumer.join(10)
    prefetcher.stop()
    assert (taken, most) == ([0, 1, 2, 3], 1)


def test_awaiting_asks_and_says_whether_a_result_lies_ready():
    gate = threading.Event()

    def work(task):
        assert task == 0 or gate.wait(60)
        return task

    prefetcher = Prefetcher(work, itertools.count(), num_workers=1, window_size=2)
    assert prefetcher.await_next(60)
    assert next(prefetcher) == 0
    for _ in range(50):
        assert not prefetcher.await_next(0.0)
        assert not prefetcher.await_next(0.001)
    assert len(prefetcher._bells) == 0  # of those who wait no longer
    gate.set()
    assert prefetcher.await_next(60)
    assert next(prefetcher) == 1
    prefetcher.stop()


@pytest.mark.parametrize(("window_size", "num_enough"), [(8, 3), (2, 2)])
def test_it_says_whether_enough_lies_ready(window_size, num_enough):
    gates = [threading.Event() for _ in range(12)]
    prefetcher = Prefetcher(
        lambda task: gates[task].wait(30) and task,
        iter(range(12)),
        num_workers=1,
        window_size=window_size,
    )
    prefetcher.await_next(0.0)
    for number in range(num_enough):
        assert not prefetcher.has_ahead(3)
        gates[number].set()
        assert prefetcher.fill(number + 1, 60)
    assert prefetcher.has_ahead(3)
    assert next(prefetcher) == 0
    assert not prefetcher.has_ahead(3)
    for gate in gates:
        gate.set()
    prefetcher.stop()


def test_before_a_barrier_there_is_enough():
    tasks = iter([0, 1, Barrier(lambda: None), 2, 3, 4])
    prefetcher = Prefetcher(lambda task: task, tasks, num_workers=1, window_size=8)
    assert next(prefetcher) == 0
    awaited(lambda: prefetcher.has_ahead(3))
    prefetcher.stop()


def test_what_lies_ready_can_be_seen_and_stays():
    def work(task):
        if task == 1:
            raise ValueError("one")
        return task

    prefetcher = Prefetcher(work, iter(range(9)), num_workers=1, window_size=4)
    assert prefetcher.ready() == []
    assert prefetcher.fill(4, 60)
    assert prefetcher.ready() == [0, 2, 3]
    assert prefetcher.ready() == [0, 2, 3]
    assert next(prefetcher) == 0
    with pytest.raises(ValueError, match="one"):
        next(prefetcher)
    prefetcher.stop()


def test_awaiting_passes_a_barrier():
    told = []
    tasks = iter([0, Barrier(lambda: told.append("E")), 1])
    prefetcher = Prefetcher(lambda task: task, tasks, num_workers=1, window_size=4)
    assert next(prefetcher) == 0
    assert prefetcher.await_next(60)
    assert told == ["E"]
    assert next(prefetcher) == 1
    prefetcher.stop()


def test_stopping_waits_though_it_was_interrupted_before():
    """CPython takes a thread for ended after a join of it that Ctrl-C interrupts."""
    began, gate, ended = threading.Event(), threading.Event(), threading.Event()

    def work(task):
        began.set()
        gate.wait(60)
        ended.set()
        return task

    class Interruption(KeyboardInterrupt):
        pass

    def interrupt(*_):
        raise Interruption

    prefetcher = Prefetcher(work, itertools.count(), num_workers=1, window_size=1)
    assert not prefetcher.fill(1, 0.0)
    assert began.wait(60)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interruption):
            prefetcher.stop()
    finally:
        signal.signal(signal.SIGALRM, before)
    threading.Timer(0.1, gate.set).start()
    prefetcher.stop()
    assert ended.is_set()
