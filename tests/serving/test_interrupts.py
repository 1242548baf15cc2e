"""Another thread hears of Ctrl-C, unless somebody else is to."""

import os
import signal
import socket
import threading

import pytest

from keras_echo.serving.interrupts import Interrupts


@pytest.fixture
def interrupts():
    made, before = Interrupts(), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield made
    made.stop()
    signal.signal(signal.SIGINT, before)
    assert signal.set_wakeup_fd(-1) == -1
    for end in made._pair or ():
        end.close()


def heard_elsewhere(interrupts):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(interrupts.heard()))
    thread.start()
    thread.join()
    return answers[0]


def press(interrupts):
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_it_is_heard_once_and_not_by_the_main_thread(interrupts):
    interrupts.listen()
    assert not heard_elsewhere(interrupts)
    press(interrupts)
    assert not interrupts.heard()
    assert heard_elsewhere(interrupts)
    assert not heard_elsewhere(interrupts)


def test_what_came_before_is_forgotten(interrupts):
    press(interrupts)
    interrupts.listen()
    press(interrupts)
    interrupts.listen()
    assert not heard_elsewhere(interrupts)
    interrupts.stop()
    press(interrupts)
    assert not heard_elsewhere(interrupts)


def test_a_handler_of_the_users_own_decides_itself(interrupts):
    interrupts.listen()
    told = []
    signal.signal(signal.SIGINT, lambda *_: told.append("Ctrl-C"))
    os.kill(os.getpid(), signal.SIGINT)
    assert told == ["Ctrl-C"]
    assert not heard_elsewhere(interrupts)


def test_other_signals_are_none(interrupts):
    interrupts.listen()
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
    assert not heard_elsewhere(interrupts)


def test_the_file_of_somebody_else_stays_theirs(interrupts):
    here, there = socket.socketpair()
    there.setblocking(False)
    signal.set_wakeup_fd(there.fileno())
    interrupts.listen()
    interrupts.stop()
    assert signal.set_wakeup_fd(-1) == there.fileno()
    here.close()
    there.close()


def test_on_another_thread_nothing_is_begun(interrupts):
    for method in (interrupts.listen, interrupts.stop):
        thread = threading.Thread(target=method)
        thread.start()
        thread.join()
    assert signal.set_wakeup_fd(-1) == -1
