"""A training that broke off goes on as if nothing had happened: same batches, same weights."""

import contextlib
import errno
import json

import keras
import numpy as np
import pytest

from keras_echo import BackupAndRestore, DataEchoCallback, EchoingPyDataset
from keras_echo.reading.batch_file import Packed

BACKEND = keras.backend.backend()


class Training(keras.Model):
    """Random, with momentum, and it knows by its weights on which batches it was trained."""

    def __init__(self, num_steps=200):
        super().__init__()
        self.dense = keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(1))
        self.dropout = keras.layers.Dropout(0.3, seed=2)
        self.normalize = keras.layers.BatchNormalization()
        self.out = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(3))
        self.seen = self.add_weight(shape=(num_steps,), initializer="zeros", trainable=False)
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, dtype="int32")
        self(np.zeros((1, 1), "float32"))
        self.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])

    def call(self, inputs, training=False):
        if training:
            row = keras.ops.one_hot(self.count, self.seen.shape[0])
            self.seen.assign(self.seen + row * keras.ops.max(inputs))
            self.count.assign(self.count + 1)
        return self.out(self.dropout(self.normalize(self.dense(inputs / 10.0)), training=training))

    def trained_on(self):
        count = int(keras.ops.convert_to_numpy(self.count))
        return [int(number) for number in keras.ops.convert_to_numpy(self.seen)[:count]]

    def all_values(self):
        variables = [*self.variables, *self.optimizer.variables]
        return [keras.ops.convert_to_numpy(variable) for variable in variables]


class PowerError(Exception):
    pass


class FailAt(keras.callbacks.Callback):
    """Ends everything before a step of this `fit()`, or at the end of an epoch."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_begin(self, batch, logs=None):
        if self.step == 0:
            raise PowerError
        self.step -= 1


def assert_same_values(model, other):
    for value, expected in zip(model.all_values(), other.all_values(), strict=True):
        np.testing.assert_array_equal(value, expected)


SETTINGS = {
    "plain": {},
    "echo": {"echo_factor": 2.5},
    "ordered": {"echo_factor": 3, "shuffle_buffer": 0},
    "examples": {"echo_factor": 2.5, "echo": "example"},
    "augmented": {"echo_factor": 1.5, "augment": lambda batch: batch},
}


@pytest.fixture
def make_dataset(numbered):
    def make(**settings):
        return EchoingPyDataset(numbered(7, workers=2), seed=4, **settings)

    return make


def fit(make_dataset, directory, settings, *, fail_at=None, save_freq=2, epochs=4, more=()):
    """Trains until it fails, or to the end; all objects are new, as in another process."""
    model, dataset = Training(), make_dataset(**settings)
    callbacks = [*more, BackupAndRestore(dataset, directory, save_freq=save_freq)]
    if fail_at is not None:
        callbacks.append(FailAt(fail_at))
    try:
        history = model.fit(dataset, epochs=epochs, callbacks=callbacks, verbose=0)
    except PowerError:
        return model, None
    finally:
        dataset.close()
    return model, history


@pytest.mark.parametrize(
    ("kind", "fail_at"),
    [
        ("plain", (3,)),
        ("plain", (6, 0, 1)),
        ("echo", (9, 4)),
        ("ordered", (1,)),
        ("examples", (13, 1, 9)),
        ("augmented", (8,)),
    ],
)
def test_goes_on_where_it_was(make_dataset, tmp_path, kind, fail_at):
    settings = SETTINGS[kind]
    expected, undisturbed = fit(make_dataset, tmp_path / "other", settings)
    for step in fail_at:
        _, history = fit(make_dataset, tmp_path / "backup", settings, fail_at=step)
        assert history is None
    model, history = fit(make_dataset, tmp_path / "backup", settings)
    assert model.trained_on() == expected.trained_on()
    assert_same_values(model, expected)
    # The logs of the epoch that was interrupted are those of the whole epoch.
    num_epochs = len(history.epoch)
    assert history.epoch == undisturbed.epoch[-num_epochs:]
    for name, values in undisturbed.history.items():
        np.testing.assert_array_equal(history.history[name], values[-num_epochs:])


def test_by_epoch(make_dataset, tmp_path):
    expected, _ = fit(make_dataset, tmp_path / "other", {"echo_factor": 2}, save_freq="epoch")
    fit(make_dataset, tmp_path, {"echo_factor": 2}, save_freq="epoch", fail_at=17)
    model, history = fit(make_dataset, tmp_path, {"echo_factor": 2}, save_freq="epoch")
    assert history.epoch == [2, 3]
    assert_same_values(model, expected)


def test_a_resumed_training_that_fails_leaves_the_dataset_with_whole_epochs(make_dataset, tmp_path):
    expected, _ = fit(make_dataset, tmp_path / "other", {})
    fit(make_dataset, tmp_path / "backup", {}, fail_at=10)
    model, dataset = Training(), make_dataset()
    backup = BackupAndRestore(dataset, tmp_path / "backup", save_freq=2)
    with pytest.raises(PowerError):
        model.fit(dataset, epochs=4, callbacks=[backup, FailAt(2)], verbose=0)
    assert dataset.num_batches < len(dataset)
    model.fit(dataset, epochs=4, callbacks=[backup], verbose=0)
    assert_same_values(model, expected)
    fit(make_dataset, tmp_path / "backup", {}, fail_at=10)
    with pytest.raises(PowerError):
        model.fit(dataset, epochs=4, callbacks=[backup, FailAt(2)], verbose=0)
    before = len(model.trained_on())
    model.fit(dataset, epochs=1, verbose=0)
    assert len(model.trained_on()) == before + len(dataset)


def test_with_validation_and_early_stopping(make_dataset, numbered, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            assert "val_loss" in logs
            if epoch == 1:
                self.model.stop_training = True

    fit(make_dataset, tmp_path, {}, fail_at=11)
    model, dataset = Training(), make_dataset()
    backup = BackupAndRestore(dataset, tmp_path, save_freq=2)
    history = model.fit(
        dataset, epochs=4, callbacks=[Stop(), backup], validation_data=numbered(2), verbose=0
    )
    assert history.epoch == [1]
    assert len(model.trained_on()) == 14


def test_the_file_goes_at_the_end_and_the_next_fit_begins_anew(make_dataset, tmp_path):
    model, dataset = Training(), make_dataset()
    backup = BackupAndRestore(dataset, tmp_path / "backup", save_freq=2)
    fit(make_dataset, tmp_path / "backup", {}, fail_at=12)
    assert model.fit(dataset, epochs=3, callbacks=[backup], verbose=0).epoch == [1, 2]
    assert not (tmp_path / "backup").exists()
    assert model.fit(dataset, epochs=2, callbacks=[backup], verbose=0).epoch == [0, 1]
    assert len(model.trained_on()) == 35


def test_a_finished_training_that_keeps_its_backup_trains_no_more(make_dataset, tmp_path):
    for expected in ([0, 1], []):
        model, dataset = Training(), make_dataset()
        backup = BackupAndRestore(dataset, tmp_path, delete_checkpoint=False)
        assert model.fit(dataset, epochs=2, callbacks=[backup], verbose=0).epoch == expected
        assert len(model.trained_on()) == 14


def unbuilt():
    keras.utils.set_random_seed(6)
    model = keras.Sequential([keras.layers.Dense(3), keras.layers.Dropout(0.5, seed=1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model


def test_a_model_that_fit_builds(make_dataset, tmp_path):
    def train(directory, fail_at=None):
        model, dataset = unbuilt(), make_dataset(echo_factor=1.5)
        callbacks = [BackupAndRestore(dataset, directory, save_freq=2)]
        if fail_at is not None:
            callbacks.append(FailAt(fail_at))
        with contextlib.suppress(PowerError), dataset:
            model.fit(dataset, epochs=3, callbacks=callbacks, verbose=0)
        return model.get_weights()

    train(tmp_path / "backup", 10)
    for value, expected in zip(train(tmp_path / "backup"), train(tmp_path / "other"), strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("adapter", ["as_tf_dataset", "as_grain"])
def test_by_other_adapters_at_the_ends_of_epochs(make_dataset, tmp_path, adapter):
    pytest.importorskip("tensorflow" if adapter == "as_tf_dataset" else "grain")

    def train(directory, fail_at=None, save_freq="epoch"):
        model, dataset = Training(), make_dataset(echo_factor=1.5)
        callbacks = [BackupAndRestore(dataset, directory, save_freq=save_freq)]
        if fail_at is not None:
            callbacks.append(FailAt(fail_at))
        with contextlib.suppress(PowerError), dataset:
            batches = getattr(dataset, adapter)()
            steps = {"steps_per_epoch": len(dataset)} if adapter == "as_grain" else {}
            model.fit(batches, epochs=3, callbacks=callbacks, shuffle=False, verbose=0, **steps)
        return model

    train(tmp_path / "backup", 10)
    assert_same_values(train(tmp_path / "backup"), train(tmp_path / "other"))
    with pytest.raises(ValueError, match=r'save_freq must be "epoch" where fit\(\) gets'):
        train(tmp_path / "third", save_freq=2)


def test_a_disk_without_room_is_said_once(make_dataset, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Packed, "write", full)
    with pytest.warns(RuntimeWarning, match=r"The backup .* must be written") as caught:
        model, _ = fit(make_dataset, tmp_path / "backup", {})
    assert sum(each.category is RuntimeWarning for each in caught) == 1
    assert len(model.trained_on()) == 28
    assert not (tmp_path / "backup").exists()


def test_another_model_is_refused(make_dataset, tmp_path):
    fit(make_dataset, tmp_path, {}, fail_at=5)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    dataset = make_dataset()
    with pytest.raises(ValueError, match="The backup must be of this model, which has"):
        model.fit(dataset, callbacks=[BackupAndRestore(dataset, tmp_path)], verbose=0)


def test_another_dataset_is_refused(make_dataset, tmp_path):
    dataset = make_dataset()
    with pytest.raises(ValueError, match="dataset must be the one that fit"):
        Training().fit(make_dataset(), callbacks=[BackupAndRestore(dataset, tmp_path)], verbose=0)


def test_other_epochs_are_refused(make_dataset, tmp_path):
    dataset = make_dataset()
    backup = BackupAndRestore(dataset, tmp_path, save_freq=2)
    with pytest.raises(ValueError, match=r'save_freq must be "epoch" where the epochs of fit'):
        Training().fit(dataset, steps_per_epoch=3, callbacks=[backup], verbose=0)


def test_wrong_arguments(make_dataset, tmp_path):
    with pytest.raises(TypeError, match="dataset_or_callback must be an EchoingPyDataset"):
        BackupAndRestore(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="save_freq must be at least 1"):
        BackupAndRestore(make_dataset(), tmp_path, save_freq=0)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        BackupAndRestore(make_dataset(), tmp_path / "file")


@pytest.mark.skipif(BACKEND == "torch", reason="Keras runs one step at a time on PyTorch")
def test_steps_per_execution(numbered, tmp_path):
    def train(directory, fail_at):
        model, dataset = Training(), EchoingPyDataset(numbered(8), seed=4, echo_factor=1.5)
        model.steps_per_execution = 2
        backup = BackupAndRestore(dataset, directory, save_freq=3)
        callbacks = [backup] if fail_at is None else [backup, FailAt(fail_at)]
        with contextlib.suppress(PowerError):
            model.fit(dataset, epochs=3, callbacks=callbacks, verbose=0)
        return model

    train(tmp_path / "backup", 7)
    assert_same_values(train(tmp_path / "backup", None), train(tmp_path / "other", None))


def test_what_the_controller_has_learnt_comes_back(make_dataset, tmp_path):
    def controlled():
        model, dataset = Training(), make_dataset()
        echo = DataEchoCallback(dataset, profile_steps=3, profile_freq=3, warmup_steps=0, verbose=0)
        return model, dataset, echo, BackupAndRestore(echo, tmp_path, save_freq=2)

    model, dataset, echo, backup = controlled()
    with pytest.raises(PowerError):
        model.fit(dataset, epochs=4, callbacks=[echo, backup, FailAt(20)], verbose=0)
    assert echo.decisions
    saved = json.loads(json.dumps(echo.state_dict()))
    model, dataset, other, backup = controlled()

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.decisions = self.__dict__.get("decisions") or list(other.decisions)
            self.factor = dataset.echo_factor

    look = Look()
    model.fit(dataset, epochs=4, callbacks=[other, backup, look], verbose=0)
    assert len(look.decisions) >= len(saved["decisions"]) - 1
    assert repr(look.decisions) == repr(echo.decisions[: len(look.decisions)])
    assert len(model.trained_on()) == 28
