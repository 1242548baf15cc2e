"""Windows with a tracer, a clock and a dataset that do as they are told."""

import math
from contextlib import contextmanager
from pathlib import Path

import pytest

from keras_echo import EchoFactor
from keras_echo.adapting.schedule import Calls
from keras_echo.adapting.window import Window
from keras_echo.metering import EchoStats, Read
from keras_echo.probe import Input
from keras_echo.profiling import names
from keras_echo.profiling.recording.sessions import ProfilerError


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

    def stop(self):
        self.events.append("stop")

    def write(self, reads, readers, notes):
        known = dict(notes)
        ready = known.get(names.READY_STEPS, {})
        self.events.append(f"write, {len(reads)} reads by {readers}, ready {[*ready.values()]}")
        self.events.append(known[names.UPSTREAM])
        raise ProfilerError("no trace")

    def discard(self):
        self.is_open = False


class Probe:
    """A source that takes `read_seconds` for a batch, and training that takes 1 second a step.

    Training has waited for it so far, unless reads take less than a step.
    """

    num_readers = 2
    readers_since = -math.inf
    is_auto = False
    batch_bytes = 160.0
    input = Input(is_sequential=False)
    sees_dataset = sees_waits = True
    most_put_aside = 1000

    def __init__(self, clock, read_seconds):
        self.clock, self.seconds, self.waited, self.fills = clock, read_seconds, 0.0, []
        self.put_aside = self.missed = 0
        self.step_seconds = 1.0

    def stats(self):
        return EchoStats(wait_seconds=self.waited)

    def num_uses(self):
        return 0

    def trials(self):
        return []

    def num_missed(self):
        return self.missed

    @contextmanager
    def marking(self, read, wait):
        self.is_marking = True
        try:
            yield
        finally:
            self.is_marking = False

    def recent_reads(self):
        both = 2 * self.seconds
        return [Read(number // 2 * both, both, is_awaited=self.seconds > 1) for number in range(10)]

    def num_fresh(self, num_steps):
        return math.ceil(num_steps / self.factor.value)

    def fill(self, num_batches, timeout_seconds):
        self.fills.append(num_batches)
        self.clock.seconds += num_batches * self.seconds
        self.put_aside = min(num_batches, self.most_put_aside)
        return True

    def train(self):
        if self.put_aside:
            self.put_aside -= 1
        else:
            wait = max(0.0, self.seconds - 1)
            self.missed += wait > 0
            self.waited += wait
            self.clock.seconds += wait
        self.clock.seconds += self.step_seconds


IN_THE_WARM_UP, LATER = Calls(8, 10, 0), Calls(0, 10, 8)


def run(read_seconds, *, calls=LATER, problem=None, factor=None, most_put_aside=1000):
    clock, tracer = Clock(), Tracer(problem)
    probe = Probe(clock, read_seconds)
    probe.most_put_aside = most_put_aside
    return run_with(clock, tracer, probe, calls, factor)


def run_with(clock, tracer, probe, calls=LATER, factor=None):
    factor, told = factor or EchoFactor(), []
    probe.factor = factor
    window = Window(
        tracer,
        Path(),
        probe,
        factor,
        synchronize=lambda: None,
        step=20,
        calls=calls,
        tell_early=told.append,
        clock=clock,
    )
    probe.told, probe.factors = told, []
    recording = window.record()
    for passed in range(100):
        try:
            next(recording)
        except StopIteration as done:
            return done.value, tracer, probe, passed
        probe.factors.append(factor.value)
        probe.train()
    raise AssertionError


def test_the_trace_shows_calls_as_they_come_then_calls_do_not_wait():
    measured, tracer, probe, passed = run(read_seconds=4.0)
    assert passed == 18
    assert tracer.events == [
        *(f"step {number}" for number in range(20, 30)),
        "stop",
        "write, 10 reads by 2, ready [5.0, 5.0]",
        {"seconds": 4.0, "bound": "exact", "held_fraction": 0.0},
    ]
    assert probe.fills == [9]
    assert not tracer.is_open
    assert not probe.is_marking
    assert measured.problem == "no trace"
    found = measured.breakdown
    assert (found.origin, found.steps, found.ratio) == ("counters", 10, pytest.approx(4.0))
    assert found.wait_fraction == pytest.approx(3 / 4)  # as in all of the training
    assert found.downstream_seconds == pytest.approx(1.0)


def test_in_the_warm_up_calls_without_a_wait_come_first():
    measured, tracer, _, passed = run(read_seconds=4.0, calls=IN_THE_WARM_UP)
    assert passed == 18
    assert tracer.events[0] == "step 28"
    assert tracer.events[-2].endswith("ready [5.0, 5.0]")
    assert measured.breakdown.ratio == pytest.approx(4.0)


def test_what_the_calls_without_a_wait_say_is_told_before_the_trace():
    _, _, probe, _ = run(read_seconds=4.0, calls=IN_THE_WARM_UP)
    (told,) = probe.told
    assert (told.origin, told.steps, told.ratio) == ("counters", 5, pytest.approx(4.0))
    assert run(read_seconds=4.0)[2].told == []


def test_echoing_needs_fewer_batches_put_aside():
    assert run(read_seconds=4.0, factor=EchoFactor(3.0))[2].fills == [4]


def test_where_training_starves_hardly_a_batch_is_needed():
    for max_uses, read_seconds, during, fills in (
        (8.0, 4.0, 8.0, [1]),
        (3.0, 4.0, 3.0, [3]),
        (8.0, 0.5, 1.0, [9]),
    ):
        probe = run(read_seconds, factor=EchoFactor(1.0, max_uses=max_uses))[2]
        assert probe.factors == [1.0] * 10 + [during] * 8
        assert probe.fills == fills


def test_a_factor_that_is_set_meanwhile_stays():
    class Sets(Probe):
        def train(self):
            super().train()
            if factor.value == 8.0:
                factor.value = 3.0

    clock, factor = Clock(), EchoFactor(1.0, max_uses=8.0)
    run_with(clock, Tracer(), Sets(clock, 4.0), factor=factor)
    assert factor.value == 3.0


def test_steps_that_waited_for_fresh_batches_all_the_same_do_not_count():
    _, tracer, _, _ = run(read_seconds=4.0, most_put_aside=5)
    assert tracer.events[-2].endswith("ready []")


def test_what_is_waited_for_after_the_echo_belongs_to_the_step():
    class Augmented(Probe):
        def train(self):
            super().train()
            self.waited += 1.0  # a second of augmentation, though fresh batches lie ready
            self.clock.seconds += 1.0

    clock = Clock()
    measured, _, _, _ = run_with(clock, Tracer(), Augmented(clock, 4.0))
    assert measured.breakdown.ratio == pytest.approx(2.0)


def test_a_short_window_is_the_trace_only():
    measured, _, probe, passed = run(read_seconds=4.0, calls=Calls(0, 10, 0))
    assert passed == 10
    assert probe.fills == []
    assert measured.breakdown.ratio == pytest.approx(4.0)


def test_counters_serve_where_the_profiler_does_not_start():
    measured, tracer, _, _ = run(read_seconds=4.0, problem=ProfilerError("busy"))
    assert measured.problem == "busy"
    assert measured.breakdown.ratio == pytest.approx(4.0)
    assert not {"stop", "write"} & {event.split(",")[0] for event in tracer.events}


def test_a_window_that_is_given_up_closes_the_profiler():
    clock, tracer = Clock(), Tracer()
    probe = Probe(clock, 4.0)
    recording = Window(
        tracer, Path(), probe, EchoFactor(), lambda: None, 0, Calls(0, 10, 0), clock=clock
    ).record()
    next(recording)
    assert tracer.is_open
    recording.close()
    assert not tracer.is_open
    assert not probe.is_marking


def test_only_the_profiler_and_its_trace_count_as_holding_training_up():
    clock = Clock()

    class SlowTracer(Tracer):
        def start(self, logdir):
            clock.seconds += 1

        def stop(self):
            clock.seconds += 2

        def write(self, reads, readers, notes):
            clock.seconds += 4
            raise ProfilerError("no trace")

    measured, _, _, _ = run_with(clock, SlowTracer(), Probe(clock, read_seconds=4.0))
    assert measured.held_seconds == 7
