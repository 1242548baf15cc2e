"""Windows with a tracer, a clock and a dataset that do as they are told."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from keras_echo import EchoFactor
from keras_echo.profiling.sessions import ProfilerError
from keras_echo.stats import EchoStats
from keras_echo.window import Window


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


class Tracer:
    """Notes what happens; has no trace."""

    def __init__(self, problem=None):
        self.problem, self.events, self.is_open = problem, [], False

    def start(self, logdir):
        if self.problem:
            raise self.problem
        self.is_open = True

    @contextmanager
    def annotate(self, name, **stats):
        self.events.append(name.removeprefix("keras_echo."))
        yield

    def step(self, number):
        return self.annotate(f"step {number}")

    def stop(self, reads, readers, ready_steps):
        self.events.append(f"stop, {len(reads)} reads by {readers}, ready {ready_steps}")
        raise ProfilerError("no trace")

    def discard(self):
        self.is_open = False


class Probe:
    """A source that takes `read_seconds` for a batch, and training that takes 1 second a step."""

    num_readers = 2
    most_put_aside = 1000

    def __init__(self, clock, read_seconds):
        self.clock, self.seconds, self.waited, self.fills = clock, read_seconds, 0.0, []
        self.put_aside = 0

    def stats(self):
        return EchoStats(0, 0, 0, 0, 0, 0.0, self.waited, 1.0)

    @contextmanager
    def marking(self, read, wait):
        self.is_marking = True
        try:
            yield
        finally:
            self.is_marking = False

    def reads_since(self, _):
        return [(0.0, 2 * self.seconds)] * 5

    def fill(self, num_batches, timeout_seconds):
        self.fills.append(num_batches)
        self.clock.seconds += num_batches * self.seconds
        self.put_aside = min(num_batches, self.most_put_aside)
        return True

    def read_seconds(self):
        return self.seconds

    def train(self):
        if self.put_aside:
            self.put_aside -= 1
        else:
            wait = max(0.0, self.seconds - 1)
            self.waited += wait
            self.clock.seconds += wait
        self.clock.seconds += 1


def run(read_seconds, *, num_ready_calls=8, problem=None, factor=1.0):
    clock, tracer = Clock(), Tracer(problem)
    probe = Probe(clock, read_seconds)
    window = Window(
        tracer,
        Path(),
        probe,
        EchoFactor(factor),
        synchronize=lambda: None,
        step=20,
        num_ready_calls=num_ready_calls,
        num_calls=10,
        clock=clock,
    )
    recording = window.record()
    for calls in range(100):
        try:
            next(recording)
        except StopIteration as done:
            return done.value, tracer, probe, calls
        probe.train()
    raise AssertionError


def test_first_calls_without_a_wait_and_without_the_profiler_then_calls_as_they_come():
    measured, tracer, probe, calls = run(read_seconds=4.0)
    assert calls == 18
    assert tracer.events == [f"step {number}" for number in range(28, 38)] + [
        "stop, 5 reads by 2, ready (5, 5.0)"
    ]
    assert probe.fills == [9]
    assert not tracer.is_open
    assert not probe.is_marking
    assert measured.problem == "no trace"
    found = measured.breakdown
    assert (found.origin, found.steps, found.ratio) == ("counters", 10, pytest.approx(4.0))
    assert found.wait_fraction == pytest.approx(27 / 37)  # the tenth batch was put aside too
    assert found.downstream_seconds == pytest.approx(1.0)


def test_echoing_needs_fewer_batches_put_aside():
    assert run(read_seconds=4.0, factor=3.0)[2].fills == [4]


def test_steps_that_waited_all_the_same_do_not_count():
    Probe.most_put_aside = 5
    try:
        _, tracer, _, _ = run(read_seconds=4.0)
    finally:
        Probe.most_put_aside = 1000
    assert tracer.events[-1] == "stop, 5 reads by 2, ready None"


def test_without_a_warm_up_there_is_the_trace_only():
    measured, _, probe, calls = run(read_seconds=4.0, num_ready_calls=0)
    assert calls == 10
    assert probe.fills == []
    assert measured.breakdown.ratio == pytest.approx(4.0)


def test_counters_serve_where_the_profiler_does_not_start():
    measured, tracer, _, _ = run(read_seconds=4.0, problem=ProfilerError("busy"))
    assert measured.problem == "busy"
    assert measured.breakdown.ratio == pytest.approx(4.0)
    assert not any(event.startswith("stop") for event in tracer.events)


def test_a_window_that_is_given_up_closes_the_profiler():
    clock, tracer = Clock(), Tracer()
    probe = Probe(clock, 4.0)
    recording = Window(
        tracer, Path(), probe, EchoFactor(), lambda: None, 0, 0, 10, clock=clock
    ).record()
    next(recording)
    assert tracer.is_open
    recording.close()
    assert not tracer.is_open
    assert not probe.is_marking
