import gc
import multiprocessing
import os
import sys
import threading
import time

import hypothesis
import pytest

# The machines that run this are shared: no example may fail for its time.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")


@pytest.fixture(autouse=True)
def _leaves_nothing_running():
    """Every test of the suite holds the promise: no thread or process of ours is left behind."""
    yield
    if left_running():
        gc.collect()  # ends what is forgotten; it takes half a second, so not after each test
    deadline = time.monotonic() + 30
    while left := left_running():
        assert time.monotonic() < deadline, f"left running: {left}"
        time.sleep(0.02)


def left_running() -> list[object]:
    return [*ours(), *multiprocessing.active_children()]


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("keras_echo")]


_status = 0


def pytest_sessionfinish(exitstatus):
    global _status
    _status = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure():
    """Ends at once: TensorFlow 2.21 at times hangs in the interpreter's shutdown."""
    if "tensorflow" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_status)
