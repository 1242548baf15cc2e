"""Windows on what uses are worth, with a clock, a queue and a loss that are told what to be."""

import math
from contextlib import contextmanager

import numpy as np
import pytest

from keras_echo.adapting.worth_meter import WorthMeter
from keras_echo.adapting.worth_window import NUM_AHEAD, NUM_STEPS, WorthWindow
from keras_echo.probe import Nothing


class Queue:
    """Fresh batches, of which those from `next` on lie ready; batch n of the stream is just n."""

    def __init__(self, num_ready=4, uses=3):
        self.next, self.num_ready, self.uses = 0, num_ready, uses
        self.num_ahead, self.filled, self.is_steady, self.made = 0, [], False, []

    def upcoming(self):
        def make(number):
            self.made.append(number)
            return number

        ready = range(self.next, self.next + self.num_ready)
        return {(0, number): lambda number=number: make(number) for number in ready}

    def fill(self, num_batches, timeout_seconds):
        self.filled.append((num_batches, timeout_seconds))
        return True

    @contextmanager
    def steady(self):
        self.is_steady = True
        try:
            yield
        finally:
            self.is_steady = False

    def number_of_use(self, step):
        return step % self.uses + 1 if self.uses else 0


class Loss:
    """Falls by the use's worth in each step; each batch has a level of its own."""

    def __init__(self, clock=None):
        self.level, self.asked, self.clock = 100.0, [], clock

    def __call__(self, batch):
        self.asked.append(batch)
        if self.clock is not None:
            self.clock[0] += 0.5
        return self.level + 1000.0 * batch

    def takes(self, batch):
        return batch != 5


def advanced(window, queue, loss, steps):
    """Runs a window: in each step the loss falls by its number, and every third takes a batch."""
    recording = window.record() if isinstance(window, WorthWindow) else window
    next(recording)
    for step in steps:
        queue.next += step % queue.uses == 0
        loss.level -= step
        if next(recording, "over") == "over":
            return True
    recording.close()
    return False


def test_decreases_are_those_of_the_steps():
    queue, loss = Queue(), Loss()
    window = WorthWindow(queue, loss, lambda: None, first_step=7, num_steps=6)
    assert advanced(window, queue, loss, range(7, 20))
    assert window.decreases == pytest.approx([7, 8, 9, 10, 11, 12])
    assert window.uses == [2, 3, 1, 2, 3, 1]


def test_a_batch_that_leaves_the_queue_is_replaced_by_the_newest():
    queue, loss = Queue(num_ready=3), Loss()
    window = WorthWindow(queue, loss, lambda: None, first_step=1, num_steps=8)
    advanced(window, queue, loss, range(1, 9))
    # Ready are 0 to 2, after step 3 batches 1 to 3, after step 6 batches 2 to 4: two each time.
    assert loss.asked == [2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 4, 2, 4, 2, 4]
    assert queue.made == [2, 1, 4]
    assert not any(map(math.isnan, window.decreases))


def test_where_nothing_lies_ready_the_step_is_unknown():
    queue, loss = Queue(num_ready=0), Loss()
    window = WorthWindow(queue, loss, lambda: None, first_step=0, num_steps=4)
    advanced(window, queue, loss, range(4))
    assert len(window.decreases) == 4
    assert all(map(math.isnan, window.decreases))


def test_a_batch_of_another_shape_is_passed_over():
    queue, loss = Queue(num_ready=6), Loss()  # takes none of number 5
    advanced(WorthWindow(queue, loss, lambda: None, 1, 2), queue, loss, (1, 2))
    assert loss.asked == [4, 3] * 3


def test_the_device_is_waited_for_before_each_loss():
    calls, queue, loss = [], Queue(), Loss()
    loss.takes = lambda batch: calls.append("loss") or True
    window = WorthWindow(queue, loss, lambda: calls.append("wait"), 0, 1)
    advanced(window, queue, loss, range(1))
    assert calls == ["wait", "loss", "loss", "wait"]


def meter_of(queue, loss):
    meter = WorthMeter(queue, follows=True)
    meter.begin(loss, lambda: None, None)
    return meter


def test_the_first_window_only_learns_what_one_costs():
    queue = Queue()
    loss = Loss()
    meter = meter_of(queue, loss)
    assert queue.num_ahead == 0
    assert not meter.is_due(3.9, 2.0)  # the loss has to be compiled
    assert meter.is_due(4.1, 2.0)
    assert advanced(meter.window(0, 0.5), queue, loss, range(NUM_STEPS))
    assert len(loss.asked) == 4
    assert queue.filled == [(NUM_AHEAD, 4 * NUM_AHEAD * 0.5)]
    assert queue.num_ahead == NUM_AHEAD
    assert not queue.is_steady
    assert advanced(meter.window(0, 0.5), queue, loss, range(NUM_STEPS + 1))
    assert len(loss.asked) == 4 + 2 * (NUM_STEPS + 1)
    meter.end()
    assert queue.num_ahead == 0
    assert not meter.is_due(1e9, 2.0)


@pytest.mark.parametrize(
    ("factor", "least", "most"),
    [(9.0, 0.045, 0.05), (3.0, 0.003, 0.0055)],  # nobody knows of use 9; use 3 surely helps
)
def test_windows_keep_to_their_share(factor, least, most):
    """A step takes a second, and each loss half of one: a window costs 17."""
    clock = [0.0]
    queue, loss = Queue(), Loss(clock)
    meter = WorthMeter(queue, follows=True, clock=lambda: clock[0])
    meter.begin(loss, lambda: None, None)
    num_steps = 0
    while clock[0] < 20_000:
        if meter.is_due(clock[0], factor):
            for _ in meter.window(0, 0.0):
                clock[0] += 1.0
                loss.level -= 1.0
                num_steps += 1
        clock[0] += 1.0
        num_steps += 1
    assert least < (clock[0] - num_steps) / clock[0] <= most


def test_a_window_that_is_cut_off_is_learnt_from_all_the_same():
    queue, loss = Queue(), Loss()
    meter = meter_of(queue, loss)
    advanced(meter.window(0, 0.0), queue, loss, range(2))
    for _ in range(8):
        assert not advanced(meter.window(0, 0.0), queue, loss, range(5))
    assert not queue.is_steady
    assert sum(estimate.num for estimate in meter.worth.estimates().values()) == 3 * 8


@pytest.mark.parametrize(
    ("queue", "problem"), [(Queue(uses=0), "mixes the uses"), (Queue(uses=3), "doesn't change")]
)
def test_what_cant_be_measured_is_said_once(queue, problem):
    meter = meter_of(queue, Loss())  # which nobody lowers
    with pytest.warns(RuntimeWarning, match=problem):
        assert sum(len(list(meter.window(0, 0.0))) for _ in range(2)) == NUM_STEPS + 1
    assert problem in meter.problem
    assert not meter.is_due(1e9, 2.0)
    assert queue.num_ahead == 0


def test_a_loss_that_fails_ends_the_measuring_alone():
    def loss(batch):
        raise ValueError("no labels")

    loss.takes = lambda batch: True
    queue = Queue()
    meter = meter_of(queue, loss)
    with pytest.warns(RuntimeWarning, match="can't be had: no labels"):
        assert list(meter.window(0, 0.0)) == []
    assert not queue.is_steady
    assert not meter.is_due(1e9, 2.0)


def test_without_a_dataset_nothing_is_measured():
    meter = WorthMeter(Nothing(), follows=True)
    with pytest.warns(RuntimeWarning, match="nobody knows"):
        meter.begin(Loss(), lambda: None, "nobody knows")
    assert not meter.is_due(1e9, 2.0)
    assert Nothing().number_of_use(3) == 0
    assert not Nothing().fill(1, 0.0)


def test_the_limit_follows_and_says_why():
    meter = WorthMeter(Queue(), follows=True)
    assert meter.follow(4.0) is None
    rng = np.random.default_rng(0)
    for _ in range(8):
        uses = rng.integers(1, 5, 16)
        worths = np.array([0.9, 0.5, 0.3, -0.3])[uses - 1]
        meter.worth.add(uses.tolist(), (worths + 0.1 * rng.normal(size=16)).tolist())
    assert meter.follow(4.0).startswith("Use 4 of a batch raises the loss on unseen data, by ")
    assert meter.limit == 3
    assert meter.follow(3.0).startswith("Use 3 of a batch lowers the loss")
    assert meter.limit == 4
    assert 4 not in meter.worth.estimates()  # it begins anew
    reporting = WorthMeter(Queue(), follows=False)
    reporting.worth = meter.worth
    assert reporting.follow(3.0) is None
    assert reporting.limit == math.inf


def test_at_factor_1_no_window_is_due():
    assert not meter_of(Queue(), Loss()).is_due(1e9, 1.0)
