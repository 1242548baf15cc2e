import gc
import multiprocessing
import threading
import time

import pytest


@pytest.fixture(autouse=True)
def _leaves_nothing_running():
    """Every test of the suite holds the promise: no thread or process of ours is left behind."""
    yield
    gc.collect()
    deadline = time.monotonic() + 10
    while left := [*ours(), *multiprocessing.active_children()]:
        assert time.monotonic() < deadline, f"left running: {left}"
        time.sleep(0.02)


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("keras_echo")]
