"""Whoever raises in fit(), at whatever time: it is heard, and fit() works again."""

import keras
import pytest
from recorder import Numbered, Recorder

from keras_echo import DataEchoCallback, EchoingPyDataset

LENGTH = 40


class Raises(keras.callbacks.Callback):
    """Raises in one of its methods at one batch, or stops the training."""

    def __init__(self, method, batch, action):
        super().__init__()
        self.batch, self.action = batch, action
        setattr(self, method, self.at_batch)

    def at_batch(self, batch, logs=None):
        if batch == self.batch:
            self.action(self.model)


def fail(model):
    raise ArithmeticError("the user's own fault")


def stop(model):
    model.stop_training = True


def callback_of(dataset, log_dir):
    return DataEchoCallback(
        dataset, log_dir, profile_freq=10, profile_steps=3, warmup_steps=2, adapt=False, verbose=0
    )


@pytest.mark.parametrize("is_reused", [True, False])
@pytest.mark.parametrize("action", [fail, stop])
# Before the first window, in the trace of one, in the steps beside it, after it.
@pytest.mark.parametrize("batch", [0, 3, 5, 12, 16, 25])
def test_a_callback_that_raises_or_stops(tmp_path, batch, action, is_reused):
    with EchoingPyDataset(Numbered(LENGTH, workers=2), shuffle=False) as dataset:
        callback = callback_of(dataset, tmp_path)
        raising = Raises("on_train_batch_begin", batch, action)
        try:
            Recorder().fit(dataset, callbacks=[callback, raising], verbose=0)
        except ArithmeticError:
            assert action is fail
        else:
            assert action is stop
        if not is_reused:
            callback = callback_of(dataset, tmp_path)
        model = Recorder()
        model.fit(dataset, epochs=2, callbacks=[callback], verbose=0)
    used = model.trained_on()
    # TensorFlow fetches ahead, so the break may have taken more than were trained on.
    assert used == [(used[0] + step) % LENGTH for step in range(2 * LENGTH)]
    assert callback.decisions[-1].breakdown.origin == "trace", callback.decisions[-1].reason
    assert not list(tmp_path.glob(".window-*"))


def test_augment_raises_and_then_does_not(tmp_path):
    faults = [5]

    def augment(batch):
        x, y = batch
        if faults and x[0, 0] == faults[0]:
            raise ArithmeticError(f"can't augment {faults.pop()}")
        return x, y

    source = Numbered(LENGTH, workers=2)
    with EchoingPyDataset(source, shuffle=False, augment=augment) as dataset:
        model = Recorder()
        with pytest.raises(Exception, match="can't augment 5"):
            model.fit(dataset, callbacks=[callback_of(dataset, tmp_path)], verbose=0)
        # TensorFlow may count the step that had no batch.
        first = model.trained_on()[:5]
        assert first == [0, 1, 2, 3, 4][: len(first)]
        model = Recorder()
        model.fit(dataset, callbacks=[callback_of(dataset, tmp_path)], verbose=0)
    assert model.trained_on() == [(5 + step) % LENGTH for step in range(LENGTH)]
