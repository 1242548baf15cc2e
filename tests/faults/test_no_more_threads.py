"""The system has no more threads to give."""

import threading

import pytest
from recorder import Numbered, Recorder

from keras_echo import DataEchoCallback, EchoingPyDataset

LENGTH = 30


@pytest.fixture
def limit(monkeypatch):
    """Sets how many threads keras_echo may have at a time, as a limit of the system does."""
    start = threading.Thread.start

    def at_most(most):
        def starting(thread):
            running = [one for one in threading.enumerate() if one.name.startswith("keras_echo")]
            if thread.name.startswith("keras_echo") and len(running) >= most:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", starting)

    return at_most


def fit(dataset):
    callback = DataEchoCallback(dataset, profile_freq=5, profile_steps=3, warmup_steps=2, verbose=0)
    model = Recorder()
    model.fit(dataset, callbacks=[callback], verbose=0)
    return model.trained_on(), callback.decisions


@pytest.mark.parametrize(
    ("most", "augment"),
    [(1, None), (2, None), (3, None), (5, lambda batch: batch), (6, lambda batch: batch)],
)
def test_training_goes_on_with_the_readers_that_are_to_be_had(limit, most, augment):
    limit(most)
    source = Numbered(LENGTH, workers=4)
    options = {"shuffle": False, "echo_factor": 2, "shuffle_buffer": 0}
    with EchoingPyDataset(source, augment=augment, **options) as dataset:
        used, decisions = fit(dataset)
    assert list(dict.fromkeys(used)) == list(range(len(set(used))))
    assert len(used) == LENGTH
    assert decisions


@pytest.mark.parametrize("augment", [None, lambda batch: batch], ids=["plain", "augmented"])
def test_without_a_reader_there_is_one_clear_error(limit, augment):
    with EchoingPyDataset(Numbered(LENGTH, workers=4), augment=augment) as dataset:
        limit(0)
        with pytest.raises(Exception, match="can't start new thread"):
            fit(dataset)
        if augment is not None:  # threads that augment are there, and none that reads
            limit(4)
            with pytest.raises(Exception, match="can't start new thread"):
                fit(dataset)
        limit(99)
        assert len(fit(dataset)[0]) == LENGTH
