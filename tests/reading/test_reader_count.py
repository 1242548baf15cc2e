"""How many readers pay, with readers in virtual time."""

import heapq
import math
import statistics

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keras_echo.metering import Read
from keras_echo.reading.reader_count import MOST_BYTES, Fixed, ReaderCount, Search


class Reads:
    """Readers, as many as are asked for, whose reads take `seconds(their number)`.

    Args:
        seconds: From the number of readers to the seconds of a read.
        compute_share: Share of them in which a processor works.
        consumer_seconds: How long whoever takes the batches needs for each.
    """

    def __init__(self, seconds, compute_share=0.0, consumer_seconds=0.0, batch_bytes=1.0):
        self.seconds, self.compute_share = seconds, compute_share
        self.consumer_seconds, self.batch_bytes = consumer_seconds, batch_bytes
        self.num_reads = 0
        self.done = []
        self.held_seconds = self.paused_seconds = 0.0

    def recent_reads(self):
        return self.done[-1024:]

    def run(self, count, num_reads, window_size=10):
        """Reads until so many are done; returns with how many readers each was done."""
        under_way, numbers = [], []  # ends and durations; by read
        now = free = 0.0  # when the consumer can take another batch
        num_ready = 0
        while self.num_reads < num_reads:
            number = count()
            while len(under_way) < number and len(under_way) + num_ready < max(window_size, number):
                seconds = self.seconds(number)
                heapq.heappush(under_way, (now + seconds, seconds))
            end = under_way[0][0] if under_way else math.inf
            if num_ready and free <= end:  # a batch is taken before the next is there
                if not under_way:
                    self.held_seconds += free - now
                now, num_ready, free = max(now, free), num_ready - 1, free + self.consumer_seconds
                continue
            _, seconds = heapq.heappop(under_way)
            is_awaited = not num_ready and free <= end
            now, num_ready = end, num_ready + 1
            free = max(free, end) if is_awaited else free
            self.num_reads += 1
            self.done.append(
                Read(
                    end - seconds,
                    seconds,
                    self.held_seconds,
                    self.paused_seconds,
                    is_awaited,
                    compute_seconds=self.compute_share * seconds,
                )
            )
            numbers.append(number)
        return numbers


def rate(seconds, number):
    return number / seconds(number)


def auto(reads, num_cores=4, is_echoing=False):
    return ReaderCount(Search(1), reads, num_cores, lambda: is_echoing)


@given(alone=st.floats(0.01, 0.5), saturating=st.floats(1.0, 40.0))
@example(alone=0.02, saturating=1.0)
@example(alone=0.02, saturating=5.0)
@example(alone=0.02, saturating=40.0)
@settings(max_examples=60, deadline=None)
def test_they_are_the_fewest_that_saturate_what_they_share(alone, saturating):
    """Each reads at its own speed until together they have all of the bandwidth."""

    def seconds(number):
        return alone * max(1.0, number / saturating)

    count = auto(Reads(seconds))
    # Most of the time: now and then, more of them are tried again.
    usual = statistics.mode(count._reads.run(count, 1600)[-600:])
    best = max(rate(seconds, number) for number in (1, 2, 4, 8, 16, 32))
    assert rate(seconds, usual) >= 0.95 * best
    assert abs(usual - min(math.ceil(saturating), 32)) <= 2


@pytest.mark.parametrize("saturating", [1, 3, 5, 12, 32])
def test_within_200_reads_they_are_as_fast_as_the_best_number(saturating):
    def seconds(number):
        return 0.02 * max(1.0, number / saturating)

    count = auto(Reads(seconds))
    numbers = count._reads.run(count, 200)
    best = max(rate(seconds, number) for number in (1, 2, 4, 8, 16, 32))
    assert rate(seconds, numbers[-1]) >= 0.95 * best


def test_where_reads_compute_there_are_no_more_than_processors():
    count = auto(Reads(lambda number: 0.02, compute_share=1.0), num_cores=3)
    assert max(count._reads.run(count, 300)) == 3


def test_where_batches_are_large_there_are_fewer():
    count = auto(Reads(lambda number: 0.02, batch_bytes=MOST_BYTES / 5.5))
    assert max(count._reads.run(count, 300)) == 5


@given(consumer_seconds=st.floats(0.025, 1.0))
@settings(max_examples=20, deadline=None)
def test_none_is_added_where_training_does_not_wait(consumer_seconds):
    count = auto(Reads(lambda number: 0.02, consumer_seconds=consumer_seconds))
    assert set(count._reads.run(count, 300)) == {1}


def test_they_follow_a_change():
    reads = Reads(lambda number: 0.02)
    reads.seconds = lambda number: 0.02 * (max(1, number / 2) if reads.num_reads < 200 else 1)
    count = auto(reads)
    numbers = reads.run(count, 1000)
    assert numbers[199] == 2
    assert numbers[-1] == 32


def test_a_fixed_number_is_compared_with_half_of_it_once_when_asked():
    reads = Reads(lambda number: 0.05)
    count = ReaderCount(Fixed(4), reads, 2, lambda: True)
    assert set(reads.run(count, 100)) == {4}
    assert count.plan.trials() == []
    count.compare()
    assert count.is_comparing
    numbers = reads.run(count, 250)
    assert {number: numbers.count(number) for number in numbers}.keys() == {2, 4}
    assert numbers[-1] == 4
    assert not count.is_comparing
    (fewer, fewer_seconds), (usual, usual_seconds) = count.plan.trials()
    assert (fewer, usual) == (2, 4)
    assert fewer_seconds == pytest.approx(0.025)
    assert usual_seconds == pytest.approx(0.0125)
    assert reads.done[-1].end > count.since > reads.done[100].end


def test_nothing_is_compared_where_readers_rest_meanwhile():
    reads = Reads(lambda number: 0.02, consumer_seconds=0.1)
    count = ReaderCount(Fixed(4), reads, 2, lambda: True)
    reads.run(count, 30)
    count.compare()
    reads.run(count, 200)
    assert not count.is_comparing
    assert count.plan.trials() == []
    assert count.number == 4


def test_what_was_read_while_nobody_trained_does_not_count():
    reads = Reads(lambda number: 0.02)
    count = auto(reads)

    def paused(number):
        reads.paused_seconds += 1.0
        return 0.02

    reads.seconds = paused
    assert set(reads.run(count, 100)) == {1}


def test_one_reader_has_nobody_to_be_compared_with():
    count = ReaderCount(Fixed(1), Reads(lambda number: 0.02), 2, lambda: True)
    count.compare()
    assert not count.is_comparing
