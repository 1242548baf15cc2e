import threading
import time

import pytest

from keras_echo.demo.slow_store.pacer import Pacer


class Time:
    """A clock whose sleeps last longer than asked for, as real ones do."""

    def __init__(self, overshoot=0.0):
        self.now = 1000.0
        self.overshoot = overshoot

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds + self.overshoot


@pytest.mark.parametrize("overshoot", [0.0, 0.001, 0.015])
def test_sleeping_too_long_does_not_lower_the_rate(overshoot):
    fake = Time(overshoot)
    pacer = Pacer(1000.0, fake.clock, fake.sleep)
    for _ in range(10_000):
        pacer.wait(10)
    assert fake.now - 1000.0 == pytest.approx(100.0, abs=0.021)


@pytest.mark.parametrize("overshoot", [0.0, 0.015])
@pytest.mark.parametrize("silence", [0.02, 60.0])
def test_a_silence_earns_nothing_but_the_time_to_ask(silence, overshoot):
    fake = Time(overshoot)
    pacer = Pacer(1000.0, fake.clock, fake.sleep)
    pacer.wait(10)
    fake.now += silence
    before = fake.now
    pacer.wait(100)
    assert 0.08 <= fake.now - before <= 0.1 + overshoot
    assert fake.now - before == pytest.approx(0.1 - min(0.003 + overshoot, 0.02) + overshoot)


def test_asking_a_little_late_lowers_the_rate_by_nothing():
    fake = Time()
    pacer = Pacer(1000.0, fake.clock, fake.sleep)
    for _ in range(1000):
        pacer.wait(10)
        fake.now += 0.002
    assert fake.now - 1000.0 == pytest.approx(10.0, abs=0.03)


@pytest.mark.parametrize(("rate", "chunk"), [(10.0, 1), (1e6, 10_000), (1e12, 1 << 20)])
def test_chunks_last_a_hundredth_of_a_second(rate, chunk):
    assert Pacer(rate).chunk == chunk


def test_threads_share_one_rate():
    pacer = Pacer(1e6)
    begin = time.monotonic()

    def send():
        for _ in range(25):
            pacer.wait(10_000)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.95 < time.monotonic() - begin < 1.5
