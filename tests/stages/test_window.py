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

    def stop(self, reads, readers):
        self.events.append(f"stop, {len(reads)} reads by {readers}")
        raise ProfilerError("no trace")

    def discard(self):
        self.is_open = False


class Probe:
    """A source that takes `read_seconds` for a batch, and training that takes 1 second a step."""

    num_readers = 2

    def __init__(self, clock, read_seconds):
        self.clock, self.read_seconds, self.waited, self.fills = clock, read_seconds, 0.0, []
        self.put_aside = 0

    def stats(self):
        return EchoStats(0, 0, 0, 0, 0, 0.0, self.waited, 1.0)

    @contextmanager
    def marking(self, read, wait):
        self.is_marking = True
        yield
        self.is_marking = False

    def reads_since(self, _):
        return [(0.0, 2 * self.read_seconds)] * 5

    def fill(self, num_batches, timeout_seconds):
        self.fills.append(num_batches)
        self.clock.seconds += num_batches * self.read_seconds
        self.put_aside = num_batches
        return True

    def train(self):
        if self.put_aside:
            self.put_aside -= 1
        else:
            wait = max(0.0, self.read_seconds - 1)
            self.waited += wait
            self.clock.seconds += wait
        self.clock.seconds += 1


def run(read_seconds, *, num_calls=10, problem=None, factor=1.0):
    clock, tracer = Clock(), Tracer(problem)
    probe = Probe(clock, read_seconds)
    window = Window(
        tracer, Path(), probe, EchoFactor(factor), lambda: None, 20, num_calls, clock=clock
    )
    recording = window.record()
    for calls in range(100):
        try:
            next(recording)
        except StopIteration as done:
            return done.value, tracer, probe, calls
        probe.train()
    raise AssertionError


def test_a_starving_window_goes_on_with_batches_that_were_put_aside():
    measured, tracer, probe, calls = run(read_seconds=4.0)
    assert calls == 10
    assert tracer.events == [
        *["step 20", "step 21", "step 22", "fill"],
        *["ready_step"] * 4,
        "stop, 5 reads by 2",
    ]
    assert probe.fills == [8]
    assert not tracer.is_open
    assert not probe.is_marking
    assert measured.problem == "no trace"
    found = measured.breakdown
    assert (found.origin, found.steps, found.ratio) == ("counters", 3, pytest.approx(4.0))
    assert found.wait_fraction == pytest.approx(0.75)
    assert found.downstream_seconds == pytest.approx(1.0)


def test_echoing_needs_fewer_batches_put_aside():
    assert run(read_seconds=4.0, factor=3.0)[2].fills == [4]


def test_a_window_that_does_not_starve_has_no_pause():
    measured, tracer, probe, calls = run(read_seconds=0.5)
    assert calls == 10
    assert tracer.events[:-1] == [f"step {number}" for number in range(20, 30)]
    assert probe.fills == []
    assert measured.breakdown.ratio == pytest.approx(0.5)


@pytest.mark.parametrize("num_calls", [3, 4, 5])
def test_a_short_window_is_one_all_the_same(num_calls):
    measured, _, _, calls = run(read_seconds=4.0, num_calls=num_calls)
    assert calls == num_calls
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
        tracer, Path(), probe, EchoFactor(), lambda: None, 0, 10, clock=clock
    ).record()
    next(recording)
    assert tracer.is_open
    recording.close()
    assert not tracer.is_open
