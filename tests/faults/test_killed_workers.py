"""Worker processes are killed while they read: the error says so, or training goes on."""

import gc
import multiprocessing
import os
import random
import signal

import keras
import numpy as np
import pytest
from recorder import Recorder
from scenarios import Slow

from keras_echo import EchoingPyDataset

LENGTH = 10


class KillsAWorker(keras.callbacks.Callback):
    """Before some batches, kills a process that reads."""

    def __init__(self, batches):
        super().__init__()
        self.batches, self.random = batches, random.Random(0)

    def on_train_batch_begin(self, batch, logs=None):
        if batch in self.batches:
            alive = multiprocessing.active_children()
            os.kill(self.random.choice(alive).pid, signal.SIGKILL)


def train(dataset, *callbacks):
    model = Recorder()
    model.fit(dataset, callbacks=callbacks, verbose=0)
    return model.trained_on()


def echoing(**options):
    """One process, which is always at a read."""
    source = Slow(LENGTH, 0.1, workers=1, use_multiprocessing=True, max_queue_size=2)
    return EchoingPyDataset(source, shuffle=False, **options)


@pytest.mark.timeout(240)
def test_a_killed_worker_is_an_error_that_says_so():
    with (
        echoing() as dataset,
        pytest.raises(Exception, match=r"stay alive while it reads\. .*exit code -9"),
    ):
        train(dataset, KillsAWorker([2]))
    assert not multiprocessing.active_children()


@pytest.mark.timeout(240)
def test_with_skip_training_goes_on_with_another_worker():
    with (
        echoing(on_error="skip") as dataset,
        pytest.warns(RuntimeWarning, match="A read failed and was skipped"),
    ):
        used = train(dataset, KillsAWorker([2]))
    # What the killed one was at is left out, and nothing else.
    left_out = set(range(LENGTH)) - set(used)
    assert len(left_out) == 1
    assert used == [*(index for index in range(LENGTH) if index not in left_out), 0]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the loader is PyTorch's")
def test_a_killed_worker_of_a_loader_is_its_own_error():
    import torch

    class Items(torch.utils.data.Dataset):
        def __len__(self):
            return 400

        def __getitem__(self, index):
            return np.full((1,), index, "float32"), np.zeros((1,), "float32")

    loader = torch.utils.data.DataLoader(Items(), batch_size=4, num_workers=2)
    # PyTorch says so itself, unless the batch that it fetches was in the memory of the killed one.
    with (
        EchoingPyDataset(loader) as dataset,
        pytest.raises((RuntimeError, ConnectionError), match=r"DataLoader worker|reset|refused"),
    ):
        train(dataset, KillsAWorker([5]))
    gc.collect()
    assert not multiprocessing.active_children()
