"""Source, readers, queue, echo and both loops of the controller, in virtual time.

The echo, the measure of t_upstream, the tuner and the watch are the real ones. Readers and training
are models: a reader begins its next read as soon as the window has room, batches are delivered in
order, and a step takes `step_seconds`.
"""

import itertools
from collections import deque
from typing import NamedTuple

from keras_echo.adapting.schedule import Balance, Look
from keras_echo.adapting.tuner import BRIDGING, NextWindow, decide
from keras_echo.echoing.repetition import Echo
from keras_echo.metering import Read
from keras_echo.profiling.measuring.result import from_counters
from keras_echo.profiling.measuring.upstream import upstream
from keras_echo.serving.reading_gap import LITTLE_PATIENCE, PATIENCE

FIRST_DECISION, WINDOW, LOOK, EPOCH = 10, 18, 100, 500


class Slot(NamedTuple):
    """A read: begun, and done or not."""

    start: float
    end: float


class Readers:
    """Reads that take `seconds[0]`, `seconds[1]`, ... and are delivered in order."""

    def __init__(self, seconds, num_readers, window_size):
        self.seconds = iter(seconds)
        self.num_readers, self.window_size = num_readers, max(window_size, num_readers)
        self.now = 0.0
        self.window = deque()
        self.reads = []
        self.num_taken = 0
        self.held_seconds = self.paused_seconds = self.share_held = 0.0
        self.is_paused = False
        self.is_awaited = False
        self.start_reads()

    def start_reads(self):
        """Has idle readers begin, as far as there is room."""
        while len(self.window) < self.window_size and self.num_running < self.num_readers:
            self.window.append(Slot(self.now, self.now + next(self.seconds)))
        is_held = len(self.window) == self.window_size and self.is_ready
        self.share_held = 1 - self.num_running / self.num_readers if is_held else 0.0

    @property
    def num_running(self):
        """Reads under way."""
        return sum(slot.end > self.now for slot in self.window)

    @property
    def is_ready(self):
        """Whether the next batch lies ready."""
        return self.window[0].end <= self.now

    @property
    def next_end(self):
        """When the next read ends; None if none is under way."""
        return min((slot.end for slot in self.window if slot.end > self.now), default=None)

    def advance(self, until):
        """Lets time pass."""
        while True:
            end = self.next_end
            is_last = end is None or end > until
            moved = until if is_last else end
            rested_seconds = self.share_held * (moved - self.now)
            if self.is_paused:
                self.paused_seconds += rested_seconds
            else:
                self.held_seconds += rested_seconds
            self.now = moved
            if is_last:
                return
            self.reads += [
                Read(
                    slot.start,
                    slot.end - slot.start,
                    self.held_seconds,
                    self.paused_seconds,
                    self.is_awaited,
                )
                for slot in self.window
                if slot.end == end
            ]
            self.start_reads()

    def is_crowded(self):
        """See `Prefetcher.is_crowded`."""
        num_done = len(self.window) - self.num_running
        return num_done >= max(1, self.window_size - self.num_readers, self.window_size // 2)

    def miss(self):
        """The next batch was asked for and isn't ready."""
        self.is_awaited = True

    def __iter__(self):
        return self

    def __next__(self):
        while not self.is_ready:
            self.miss()
            self.advance(self.next_end)
        self.window.popleft()
        self.is_awaited = False
        self.num_taken += 1
        self.start_reads()
        return self.num_taken


class Training:
    """Trains for `num_steps`, and keeps what happened.

    Attributes:
        factors: The factor at each step.
        wait_seconds: What each step waited.
        batches: The batch of each step.
        decisions: Step, R, its bound and the factor, of each decision.
    """

    def __init__(
        self,
        seconds,
        *,
        num_readers=1,
        window_size=10,
        step_seconds=1.0,
        max_factor=8.0,
        factor=1.0,
        num_steps=1000,
        adapts=True,
        may_read_ahead=False,
        validation_seconds=0.0,
    ):
        self.readers = Readers(seconds, num_readers, window_size)
        self.step_seconds, self.factor, self.max_factor = step_seconds, factor, max_factor
        self.max_uses, self.min_uses = max_factor, 1.0
        self.may_read_ahead = may_read_ahead
        self.echo = Echo(self.readers, lambda: self.factor, self)
        self.factors, self.wait_seconds, self.batches, self.decisions = [], [], [], []
        self.breakdowns, self.since, self.balance = [], 0.0, Balance()
        self.looked, self.has_gap = deque([0.0], maxlen=2), False
        next_window = FIRST_DECISION if adapts else num_steps
        next_look = LOOK
        self.validation_seconds, self.paused_seconds = validation_seconds, 0.0
        for step in range(num_steps):
            if step % LOOK == LOOK - 1:
                self.validate()
            if step == next_window or step >= next_look:
                is_lost = self.look(step) if step >= next_look else False
                next_look = step + LOOK if step >= next_look else next_look
                if adapts and (is_lost or step == next_window):
                    if is_lost:
                        self.since = self.looked[0]
                        self.breakdowns.clear()
                    again = self.decide(step) is NextWindow.AT_ONCE or len(self.breakdowns) == 1
                    next_window = step + (WINDOW if again else EPOCH)
            self.train()
        self.seconds = self.readers.now

    def train(self):
        """One step."""
        began = self.readers.now
        self.batches.append(next(self.echo).item)
        self.wait_seconds.append(self.readers.now - began)
        self.factors.append(self.factor)
        self.readers.advance(self.readers.now + self.step_seconds)

    def validate(self):
        """Nobody trains for a while."""
        self.readers.is_paused = True
        self.readers.advance(self.readers.now + self.validation_seconds)
        self.readers.is_paused = False
        self.paused_seconds += self.validation_seconds

    def is_full(self):
        """See `Gap`."""
        return self.readers.is_crowded()

    def is_open(self):
        """See `Gap`."""
        readers = self.readers
        if not (readers.is_ready or self.has_gap):
            readers.miss()
            patience = PATIENCE if self.factor == 1 else LITTLE_PATIENCE
            until = readers.now + patience * self.step_seconds
            while not readers.is_ready and readers.now < until:
                readers.advance(min(until, readers.next_end))
        self.has_gap = not readers.is_ready
        return self.has_gap

    def look(self, step):
        """Whether the balance has changed."""
        self.looked.append(self.readers.now)
        look = Look(
            step,
            self.echo.num_fresh,
            self.readers.now - self.paused_seconds,
            sum(self.wait_seconds),
            self.readers.held_seconds,
        )
        return self.balance.has_changed(
            look, self.factor, is_least=self.factor == 1, is_most=self.factor == self.max_factor
        )

    def decide(self, step):
        """Takes a window, and sets the factor; returns when the next is to come."""
        reads, num_readers = self.readers.reads, self.readers.num_readers
        known = upstream(reads, num_readers, may_read_ahead=self.may_read_ahead, since=self.since)
        self.breakdowns.append(
            from_counters(
                steps=10,
                seconds=10 * self.step_seconds,
                wait_seconds=0.0,
                upstream=known,
                num_readers=num_readers,
                downstream_seconds=self.step_seconds,
            )
        )
        choice = decide(
            self.breakdowns,
            self.factor,
            min_factor=1.0,
            max_factor=self.max_factor,
            policy=BRIDGING,
        )
        self.factor = choice.factor
        self.decisions.append((step, choice.ratio, self.breakdowns[-1].bound, choice.factor))
        return choice.next_window

    @property
    def step_rate(self):
        """Steps per second over those that never wait, from the second step on."""
        num = len(self.batches) - 1
        return num * self.step_seconds / (num * self.step_seconds + sum(self.wait_seconds[1:]))

    @property
    def num_fresh(self):
        """Fresh batches that were used."""
        return len(set(self.batches))


def delivered(seconds, num_readers, window_size, total_seconds):
    """How many batches the readers deliver in that time to somebody who takes all at once."""
    readers = Readers(seconds, num_readers, window_size)
    return sum(1 for _ in itertools.takewhile(lambda _: readers.now <= total_seconds, readers))
