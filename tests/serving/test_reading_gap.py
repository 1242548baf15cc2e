"""When a gap is open: by a clock and results that the test sets."""

import warnings

import pytest

from keras_echo.factor import EchoFactor
from keras_echo.serving.reading_gap import LITTLE_PATIENCE, PATIENCE, ReadingGap

STEP = 0.25


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


class Fresh:
    """Ready at a time by the clock, which waiting advances."""

    def __init__(self, clock, ready_at):
        self.clock, self.ready_at, self.waited = clock, ready_at, []

    is_full = False

    def is_crowded(self):
        return self.is_full

    def has_ahead(self, num_results):
        return self.num_ready >= num_results

    def await_next(self, timeout_seconds):
        begun = self.clock.seconds
        self.clock.seconds = max(begun, min(begun + timeout_seconds, self.ready_at))
        self.waited.append(self.clock.seconds - begun)
        return self.clock.seconds >= self.ready_at


class Training:
    """Waits from a time on, and takes `STEP` for a step."""

    def __init__(self, clock, waits_at, step_seconds):
        self.clock, self.waits_at, self.step = clock, waits_at, step_seconds

    def waiting_seconds(self):
        return max(0.0, self.clock.seconds - self.waits_at)

    def step_seconds(self):
        return self.step


def gap(factor, ready_at, waits_at=-0.01, step_seconds=STEP):
    clock = Clock()
    training = Training(clock, waits_at, step_seconds)
    made = ReadingGap(EchoFactor(factor, max_uses=8), Fresh(clock, ready_at), training, clock)
    made.num_wanted = 1
    return made, clock


def test_above_factor_1_it_is_open_at_once():
    made, clock = gap(2.0, ready_at=1.0)
    assert made.is_open()
    assert clock.seconds == 0.0
    clock.seconds = 1.0
    assert not made.is_open()


def test_a_fresh_batch_that_is_about_to_come_is_waited_for():
    for step_seconds, patience in ((STEP, 0.002), (0.01, LITTLE_PATIENCE * 0.01)):
        for late, is_open in ((-1e-4, False), (1e-4, True)):
            made, _ = gap(2.0, ready_at=patience + late, waits_at=-1e-9, step_seconds=step_seconds)
            assert made.is_open() == is_open


def test_above_factor_1_it_is_open_at_once_where_less_lies_ready_than_is_wanted():
    for factor, num_ready, is_open in ((2.0, 3, True), (2.0, 4, False), (1.0, 3, False)):
        made, clock = gap(factor, ready_at=0.0)
        made._fresh.num_ready = num_ready
        assert not made.is_open()
        made.num_ahead = 3
        assert made.is_open() == is_open
        assert clock.seconds == 0.0
        made.is_elastic = False
        assert not made.is_open()


def test_it_is_full_where_readers_soon_have_no_room_but_not_for_a_peek():
    made, _ = gap(2.0, ready_at=0.0)
    assert not made.is_full()
    made._fresh.is_full = True
    assert made.is_full()
    made.is_elastic = False
    assert not made.is_full()


def test_at_factor_1_a_wait_of_several_steps_comes_first():
    made, clock = gap(1.0, ready_at=PATIENCE * STEP - 0.1)
    assert not made.is_open()
    made, clock = gap(1.0, ready_at=PATIENCE * STEP + 0.1)
    assert made.is_open()
    assert clock.seconds == pytest.approx(PATIENCE * STEP, abs=0.02)
    opened = clock.seconds
    assert made.is_open()  # from then on at once
    assert clock.seconds == opened


def test_at_factor_1_it_waits_while_nobody_knows_what_a_step_takes():
    made, clock = gap(1.0, ready_at=10.0, step_seconds=float("nan"))
    assert not made.is_open()
    assert clock.seconds == 10.0


def test_where_uses_are_made_ahead_it_opens_when_training_waits():
    made, clock = gap(2.0, ready_at=9.0, waits_at=3.0)
    assert made.is_open()
    assert clock.seconds == pytest.approx(3.0, abs=0.02)
    made, _ = gap(2.0, ready_at=2.0, waits_at=3.0)
    assert not made.is_open()
    made, clock = gap(1.0, ready_at=9.0, waits_at=3.0)
    assert made.is_open()
    assert clock.seconds == pytest.approx(3.0 + PATIENCE * STEP, abs=0.02)


def test_a_use_that_training_does_not_wait_for_yet_waits_for_a_fresh_batch():
    made, clock = gap(2.0, ready_at=9.0)
    made.num_made = 1
    assert not made.is_open()
    assert clock.seconds == 9.0


def test_a_peek_waits():
    made, clock = gap(2.0, ready_at=9.0)
    made.is_elastic = False
    assert not made.is_open()
    assert clock.seconds == 0.0


def test_an_outage_is_told_once_and_its_end_too():
    made, clock = gap(2.0, ready_at=20.0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        while made.is_open():
            clock.seconds += 0.5
        assert not made.is_open()
    begin, end = [str(warning.message) for warning in told]
    assert begin == (
        "The source has delivered no batch for 5 seconds. Training goes on with what is there, "
        "up to max_uses=8 times."
    )
    assert end == "The source delivers batches again, after 20 seconds."


def test_a_short_gap_is_nothing_to_tell():
    made, clock = gap(2.0, ready_at=4.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while made.is_open():
            clock.seconds += 0.5
