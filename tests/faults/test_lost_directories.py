"""log_dir and the cache's directory vanish, can't be written to, or the disk is full: in fit()."""

import shutil

import keras
import numpy as np
import pytest
from full_disk import full_disk
from recorder import Numbered, Recorder

from keras_echo import BackupAndRestore, Cache, DataEchoCallback, EchoingPyDataset

LENGTH = 30
PLENTY = 10**9
CANNOT = "ignore:(A cached batch|log_dir|A read)"


class At(keras.callbacks.Callback):
    """Does something before one batch of one epoch, and once only."""

    def __init__(self, epoch, batch, action):
        super().__init__()
        self.place, self.action = (epoch, batch), action

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.place:
            self.action()


def remove(directory):
    """At once, though somebody may be writing into it."""
    shutil.rmtree(directory.rename(directory.with_name("gone")))


def replace_by_a_file(directory):
    """Nobody, not even root, can write into it then."""
    remove(directory)
    directory.write_text("a file")


def fit_with_callback(dataset, log_dir, *callbacks, epochs=3):
    callback = DataEchoCallback(
        dataset, log_dir, profile_freq=5, profile_steps=3, warmup_steps=2, verbose=0
    )
    model = Recorder()
    model.fit(dataset, epochs=epochs, callbacks=[callback, *callbacks], verbose=0)
    return model, callback


@pytest.mark.filterwarnings(f"{CANNOT}:RuntimeWarning")
@pytest.mark.parametrize("lose", [remove, replace_by_a_file])
@pytest.mark.parametrize("batch", [0, 4, 9])
def test_training_goes_on_without_its_log_dir(tmp_path, lose, batch):
    log_dir = tmp_path / "logs"
    log_dir.mkdir()
    with EchoingPyDataset(Numbered(LENGTH)) as dataset:
        model, callback = fit_with_callback(
            dataset, log_dir, At(1, batch, lambda: lose(log_dir)), epochs=2
        )
    assert len(model.trained_on()) == 2 * LENGTH
    assert callback.decisions
    if log_dir.is_dir():
        assert not list(log_dir.glob(".window-*"))


@pytest.mark.filterwarnings(f"{CANNOT}:RuntimeWarning")
def test_training_goes_on_when_the_disk_of_log_dir_is_full(tmp_path):
    with full_disk(2000), EchoingPyDataset(Numbered(LENGTH)) as dataset:
        model, callback = fit_with_callback(dataset, tmp_path)
    assert len(model.trained_on()) == 3 * LENGTH
    assert {decision.breakdown.origin for decision in callback.decisions} == {"counters"}
    assert not list(tmp_path.glob(".window-*"))


@pytest.mark.parametrize("lose", [remove, replace_by_a_file])
@pytest.mark.filterwarnings("ignore:The backup .* must be written:RuntimeWarning")
def test_training_goes_on_without_its_backup(tmp_path, lose):
    directory = tmp_path / "backup"
    model, dataset = Recorder(), EchoingPyDataset(Numbered(LENGTH))
    backup = BackupAndRestore(dataset, directory, save_freq=4)
    at = At(1, 10, lambda: lose(directory))
    with dataset:
        model.fit(dataset, epochs=2, callbacks=[at, backup], verbose=0)
    assert len(model.trained_on()) == 2 * LENGTH
    assert not directory.is_dir()


def test_a_backup_on_a_full_disk_is_said_once_and_the_last_one_stays(tmp_path):
    class PowerError(Exception):
        pass

    def fail():
        raise PowerError

    def train(at):
        model, dataset = Recorder(), EchoingPyDataset(Numbered(LENGTH), seed=1)
        backup = BackupAndRestore(dataset, tmp_path, save_freq=4)
        with dataset:
            model.fit(dataset, epochs=2, callbacks=[backup, *at], verbose=0)
        return model.trained_on()

    with pytest.raises(PowerError):
        train([At(0, 14, fail)])
    with (
        full_disk(2000),
        pytest.warns(RuntimeWarning, match="The backup .* must be written.*File too large") as said,
        pytest.raises(PowerError),
    ):
        train([At(1, 10, fail)])
    assert [one.category for one in said].count(RuntimeWarning) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["keras_echo-backup"]
    resumed = train([])
    assert len(resumed) == 2 * LENGTH
    assert sorted(resumed[:LENGTH]) == sorted(resumed[LENGTH:]) == list(range(LENGTH))


class Large(Numbered):
    """A batch takes 40 kB; they come in their order."""

    def __getitem__(self, index):
        return np.full((10_000, 1), index, "float32"), np.zeros((10_000, 1), "float32")


def train_with_cache(directory, *callbacks, **options):
    cache = Cache(directory=directory, directory_bytes=PLENTY, **options)
    model = Recorder()
    with EchoingPyDataset(Large(LENGTH, workers=2), shuffle=False, cache=cache) as dataset:
        model.fit(dataset, epochs=3, callbacks=callbacks, verbose=0)
        hits = dataset.stats().cache_hits
    assert model.trained_on() == list(range(LENGTH)) * 3
    assert not list(directory.rglob("*.tmp")) if directory.is_dir() else True
    return hits


@pytest.mark.filterwarnings(f"{CANNOT}:RuntimeWarning")
@pytest.mark.parametrize("key", [None, "key"])
@pytest.mark.parametrize("lose", [remove, replace_by_a_file])
@pytest.mark.parametrize("place", [(0, 10), (1, 10)])
def test_every_batch_is_read_though_the_cache_is_lost(tmp_path, lose, key, place):
    directory = tmp_path / "cache"
    train_with_cache(directory, At(*place, lambda: lose(directory)), key=key)


def test_a_full_disk_ends_writing_to_the_cache_and_nothing_else(tmp_path):
    with (
        full_disk(50_000),
        pytest.warns(RuntimeWarning, match="must be written.*File too large") as warned,
    ):
        assert train_with_cache(tmp_path / "cache") == 0
    assert [one.category for one in warned].count(RuntimeWarning) == 1
