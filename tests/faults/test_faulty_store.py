"""A store that stops, closes connections, cuts files or has lost them: real HTTP, real fit()."""

import os
import signal
import subprocess
import sys
import threading
import time

import keras
import pytest
from faulty_server import FaultyServer, Remote, content
from recorder import Recorder

from keras_echo import EchoingPyDataset, Retry, Skip

LENGTH = 100
DEADLINE_SECONDS = 30
STOPPED_SECONDS = 10.0 if os.environ.get("KERAS_ECHO_SOAK") else 3.0


def spread(num_faults):
    """So many indices, apart from each other."""
    return [(7 + number * LENGTH // num_faults) % LENGTH for number in range(num_faults)]


def train(source, *callbacks, **options):
    """Trains for one epoch; returns the batches in the order in which they were used."""
    model = Recorder()
    with EchoingPyDataset(source, shuffle=False, **options) as dataset:
        try:
            model.fit(dataset, callbacks=callbacks, verbose=0)
        finally:
            source.client.close()
        return model.trained_on(), dataset.stats()


@pytest.mark.filterwarnings("ignore:A read failed and was skipped:RuntimeWarning")
@pytest.mark.parametrize("fault", ["missing", "cut", "short"])
@pytest.mark.parametrize("num_faults", [1, 10])
def test_what_cannot_be_read_is_skipped_and_nothing_else(fault, num_faults):
    faults = dict.fromkeys(spread(num_faults), fault)
    with FaultyServer(faults) as server:
        used, stats = train(Remote(server.url, LENGTH, workers=4), on_error="skip")
    whole = [index for index in range(LENGTH) if index not in faults]
    assert used == (whole + whole)[:LENGTH]
    assert stats.skipped_reads >= num_faults


@pytest.mark.parametrize(
    ("fault", "message"),
    [("missing", "404"), ("cut", "more expected"), ("short", "cannot reshape")],
)
@pytest.mark.parametrize("num_faults", [1, LENGTH // 10, LENGTH])
def test_training_ends_with_the_first_error_and_its_index(fault, message, num_faults):
    faults = dict.fromkeys(spread(num_faults), fault)
    began = time.monotonic()
    with FaultyServer(faults) as server, pytest.raises(Exception, match=message) as caught:
        train(Remote(server.url, LENGTH, workers=4))
    assert time.monotonic() - began < DEADLINE_SECONDS
    note = f"keras_echo was reading batch {min(faults)} of the source."
    # TensorFlow makes a message of it all, where its own threads read.
    said = [str(caught.value), *getattr(caught.value, "__notes__", [])]
    assert any(note in line for line in said)


@pytest.mark.filterwarnings("ignore:A read failed and was skipped:RuntimeWarning")
def test_where_all_is_missing_skipping_ends_after_a_pass():
    with FaultyServer(dict.fromkeys(range(LENGTH), "missing")) as server:
        source = Remote(server.url, LENGTH, workers=4)
        with pytest.raises(Exception, match="404"):
            train(source, on_error="skip")


@pytest.mark.parametrize("fault", ["missing", "cut", "short"])
@pytest.mark.parametrize("num_faults", [1, LENGTH // 10, LENGTH])
def test_what_passes_is_tried_again_and_nothing_is_lost(fault, num_faults):
    faults = dict.fromkeys(spread(num_faults), fault)
    retry = Retry(times=2, wait_seconds=0.001)
    with FaultyServer(faults, num_faults=2) as server:
        used, stats = train(Remote(server.url, LENGTH, workers=4), on_error=retry)
    assert used == list(range(LENGTH))
    # A connection that was open before is opened anew by the client itself, once.
    least = 1 if fault == "cut" else 2 * num_faults
    assert least <= stats.retried_reads <= 2 * num_faults
    assert stats.skipped_reads == 0


def test_a_limit_on_what_is_skipped_ends_training_with_the_error():
    faults = dict.fromkeys(spread(10), "missing")
    retry = Retry(times=1, wait_seconds=0.001, then=Skip(most=3))
    with (
        FaultyServer(faults) as server,
        pytest.warns(RuntimeWarning, match="A read failed and was skipped"),
        pytest.raises(Exception, match="404") as caught,
    ):
        train(Remote(server.url, LENGTH, workers=4), on_error=retry)
    said = [str(caught.value), *getattr(caught.value, "__notes__", [])]
    assert any("keras_echo has skipped 3 of " in line for line in said)


class StopsTheStore(keras.callbacks.Callback):
    """At one batch, the store's process stops; it goes on after some seconds."""

    def __init__(self, pid, batch):
        super().__init__()
        self.pid, self.batch = pid, batch

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.batch:
            os.kill(self.pid, signal.SIGSTOP)
            threading.Timer(STOPPED_SECONDS, os.kill, (self.pid, signal.SIGCONT)).start()


@pytest.fixture
def store(tmp_path):
    """The process of the demo's store, and its URL."""
    for index in range(LENGTH):
        (tmp_path / str(index)).write_bytes(content(index))
    command = [sys.executable, "-m", "keras_echo.demo.slow_store.store", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--bytes-per-second", "1e4"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process, f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


def test_a_store_that_has_stopped_is_an_error_after_read_timeout(store):
    process, url = store
    began = time.monotonic()
    stops = StopsTheStore(process.pid, 20)
    with pytest.raises(Exception, match=r"must end within read_timeout") as caught:
        train(Remote(url, LENGTH, workers=2), stops, read_timeout=1.0)
    assert time.monotonic() - began < DEADLINE_SECONDS
    assert "of the source" in str(caught.value)


def test_a_store_that_stops_is_asked_again_after_read_timeout(store):
    process, url = store
    source, stops = Remote(url, LENGTH, workers=2), StopsTheStore(process.pid, 20)
    retry = Retry(times=20, wait_seconds=0.1)
    used, stats = train(source, stops, read_timeout=1.0, on_error=retry)
    assert used == list(range(LENGTH))
    assert stats.retried_reads > 0


@pytest.mark.filterwarnings("ignore:The source deliver")  # no batch for 5 seconds, or again
@pytest.mark.filterwarnings("ignore:The source has delivered")
@pytest.mark.parametrize("max_uses", [None, 3])
def test_a_store_that_stops_for_a_while_loses_nothing(store, max_uses):
    process, url = store
    options = {"echo_factor": 1.5, "shuffle_buffer": 0, "max_uses": max_uses}

    def source():
        return Remote(url, LENGTH, workers=2, max_queue_size=4)

    began = time.monotonic()
    used, stats = train(source(), StopsTheStore(process.pid, 20), **options)
    seconds = time.monotonic() - began
    assert STOPPED_SECONDS <= seconds < STOPPED_SECONDS + DEADLINE_SECONDS
    if max_uses is None:
        assert used == train(source(), **options)[0]
    else:
        assert stats.extra_uses > 0
        firsts = list(dict.fromkeys(used))
        assert firsts == list(range(len(firsts)))
        # The last one may still be due.
        assert {used.count(index) for index in firsts[:-1]} <= {1, 2, 3}
