"""`workers="auto"`, and what a dataset and a callback say of reading, in real `fit()`s."""

import time

import numpy as np
import pytest
from emulated import Accelerator, SleepingSource, batch_of

import keras_echo


class Slow(SleepingSource):
    """Reads that wait, for a while only: many of them are read in a test."""

    def __init__(self, seconds=0.01, length=400, **options):
        super().__init__(seconds, length, **options)


def stream(dataset, num_batches):
    with dataset:
        return [dataset[index % len(dataset)][0][0, 0] for index in range(num_batches)]


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_stream_is_that_of_any_fixed_number(shuffle):
    options = {"shuffle": shuffle, "seed": 3, "echo_factor": 1.5}
    auto = keras_echo.EchoingPyDataset(Slow(), workers="auto", **options)
    fixed = keras_echo.EchoingPyDataset(Slow(0.0), workers=3, **options)
    batches = stream(auto, 900)
    assert auto.stats().num_readers > 4
    np.testing.assert_array_equal(batches, stream(fixed, 900))


def test_processes_are_added_where_the_source_asks_for_them():
    source = Slow(use_multiprocessing=True)
    dataset = keras_echo.EchoingPyDataset(source, workers="auto", shuffle=False)
    batches = stream(dataset, 120)
    np.testing.assert_array_equal(batches, [batch_of(index)[0][0, 0] for index in range(120)])
    assert dataset.stats().num_readers > 1


def test_a_sequence_has_one_reader():
    dataset = keras_echo.EchoingPyDataset(
        lambda: (batch_of(index) for index in range(50)), steps_per_epoch=50, workers="auto"
    )
    stream(dataset, 60)
    assert dataset.stats().num_readers == 1


def test_none_is_added_to_a_training_that_does_not_wait():
    with keras_echo.EchoingPyDataset(SleepingSource(0.002), steps_per_epoch=60) as dataset:
        accelerator = Accelerator(0.02)
        accelerator.train(dataset)  # compiles
    with keras_echo.EchoingPyDataset(
        SleepingSource(0.002), steps_per_epoch=100, workers="auto"
    ) as dataset:
        accelerator.train(dataset, callbacks=[keras_echo.DataEchoCallback(dataset, verbose=0)])
        assert dataset.stats().num_readers == 1


class Computing(SleepingSource):
    def __getitem__(self, index):
        began = time.thread_time()
        while time.thread_time() - began < 0.01:
            np.sort(np.arange(5000)[::-1])
        return batch_of(index)


@pytest.mark.parametrize("use_multiprocessing", [False, True])
def test_stats_say_what_computes(use_multiprocessing):
    def of(source):
        dataset = keras_echo.EchoingPyDataset(source, use_multiprocessing=use_multiprocessing)
        stream(dataset, 20)
        return dataset.stats()

    waiting, computing = of(Slow()), of(Computing(0.0))
    assert waiting.compute_seconds < 0.5 * waiting.read_seconds
    assert computing.compute_seconds >= 0.01 * computing.reads
    x, y = batch_of(0)
    assert waiting.batch_bytes == x.nbytes + y.nbytes
    assert waiting.num_readers == 1


def test_remedies_of_a_training_that_waits(tmp_path, capsys):
    accelerator = Accelerator(0.005)
    with keras_echo.EchoingPyDataset(Slow(0.03), steps_per_epoch=120, workers=2) as dataset:
        callback = keras_echo.DataEchoCallback(dataset, tmp_path)
        assert callback.remedies() == []
        accelerator.train(dataset, callbacks=[callback])
        first, *others = callback.remedies()
    assert first.kind == "readers"
    assert isinstance(first, keras_echo.Remedy)
    assert others[-1].kind == "echo"
    assert first.ratio < callback.decisions[-1].ratio
    printed = capsys.readouterr().out
    assert f"{first.change} would bring R from" in printed
    assert f"1. {first.change}" in callback.report()
    reading = callback.decisions[-1].breakdown.reading
    assert 0.03 <= reading.read_seconds < 0.06
    assert reading.waiting_fraction > 0.5
    assert reading.setup.num_batches == 400
    # The trace says the same as the callback.
    found = keras_echo.analyze(tmp_path)[-1].reading
    assert found.setup == reading.setup


def test_nothing_is_said_where_nothing_is_to_be_gained(capsys):
    accelerator = Accelerator(0.02)
    with keras_echo.EchoingPyDataset(SleepingSource(0.002), steps_per_epoch=60) as dataset:
        callback = keras_echo.DataEchoCallback(dataset)
        accelerator.train(dataset, callbacks=[callback])
        assert callback.remedies() == []
    assert "would bring" not in capsys.readouterr().out
