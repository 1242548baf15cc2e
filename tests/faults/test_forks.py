"""The process forks while readers run: neither side hangs, and the parent keeps what is its own."""

import multiprocessing
import os
import signal
import threading
import time

import keras
import numpy as np
import pytest
from recorder import Numbered, Recorder

from keras_echo import Cache, DataEchoCallback, EchoingPyDataset
from keras_echo.reading.prefetcher import Prefetcher

LENGTH = 40
DEADLINE_SECONDS = 20

# JAX and Python warn of any fork where threads run.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


class Forks(keras.callbacks.Callback):
    """Forks before some batches, and collects what becomes of the children."""

    def __init__(self, fork, batches):
        super().__init__()
        self.fork, self.batches, self.statuses = fork, batches, []

    def on_train_batch_begin(self, batch, logs=None):
        if batch in self.batches:
            self.statuses.append(self.fork())


def status_of(pid):
    """The exit status of a child, which is killed if it hangs."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"


def by_os_fork(end):
    def fork():
        pid = os.fork()
        if not pid:
            end()
        return status_of(pid)

    return fork


def at_once():
    os._exit(7)


def as_a_script_does():
    """Runs what is registered for the end of the interpreter, without pytest."""
    import atexit

    try:
        atexit._run_exitfuncs()
    finally:
        os._exit(7)


def nothing():
    pass


def by_multiprocessing():
    process = multiprocessing.get_context("fork").Process(target=nothing)
    process.start()
    process.join(DEADLINE_SECONDS)
    status = process.exitcode
    if status is None:
        process.kill()
        process.join()
        return "hangs"
    return status + 7


@pytest.mark.parametrize(
    "fork",
    [by_os_fork(at_once), by_os_fork(as_a_script_does), by_multiprocessing],
    ids=["at once", "as a script", "multiprocessing"],
)
def test_forks_while_readers_run_and_a_window_is_open(tmp_path, fork):
    forks = Forks(fork, range(2, 22, 2))
    cache = Cache(directory=tmp_path / "cache", directory_bytes=10**6)
    source = Numbered(LENGTH, workers=3)
    with EchoingPyDataset(source, shuffle=False, cache=cache) as dataset:
        callback = DataEchoCallback(
            dataset, profile_freq=10, profile_steps=6, warmup_steps=2, adapt=False, verbose=0
        )
        model = Recorder()
        model.fit(dataset, epochs=2, callbacks=[callback, forks], verbose=0)
        assert dataset.stats().cache_hits >= LENGTH
    assert forks.statuses == [7] * 20
    assert model.trained_on() == list(range(LENGTH)) * 2
    assert {one.breakdown.origin for one in callback.decisions} == {"trace"}


def test_a_child_ends_though_a_reader_held_a_lock_at_the_fork():
    prefetcher = Prefetcher(int, iter(range(3)), num_workers=1, window_size=1)
    is_held, is_over = threading.Event(), threading.Event()

    def hold():
        with prefetcher._lock:
            is_held.set()
            is_over.wait()

    reader = threading.Thread(target=hold)
    reader.start()
    is_held.wait()

    def stops():
        prefetcher.stop()
        os._exit(7)

    status = by_os_fork(stops)()
    is_over.set()
    reader.join()
    assert status == 7


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the loader is PyTorch's")
def test_a_loader_that_forks_its_workers():
    import torch

    class Items(torch.utils.data.Dataset):
        def __len__(self):
            return 4 * LENGTH

        def __getitem__(self, index):
            return np.full((1,), index // 4, "float32"), np.zeros((1,), "float32")

    loader = torch.utils.data.DataLoader(
        Items(), batch_size=4, num_workers=2, multiprocessing_context="fork"
    )
    model = Recorder()
    with EchoingPyDataset(loader) as dataset:
        model.fit(dataset, epochs=2, verbose=0)
    assert model.trained_on() == list(range(LENGTH)) * 2
