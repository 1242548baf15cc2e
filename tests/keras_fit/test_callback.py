"""DataEchoCallback in real fits, on the backend of this process (KERAS_BACKEND)."""

import copy
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

import keras_echo
from keras_echo import DataEchoCallback, EchoingPyDataset
from keras_echo.profiling.recording.sessions import ProfilerError
from keras_echo.profiling.recording.tracer import Tracer

BACKEND = keras.backend.backend()


class Slow(keras.utils.PyDataset):
    """Sleeps in each read; much longer than a step of the model takes, or not at all."""

    def __init__(self, seconds, length=1000):
        super().__init__()
        self.seconds, self.length = seconds, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return np.full((8, 4), index, "float32"), np.zeros((8, 1), "float32")


def model(**options):
    made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    made.compile("sgd", "mse", **options)
    return made


def dataset(seconds=0.02, steps=32, **options):
    return EchoingPyDataset(Slow(seconds), steps_per_epoch=steps, **options)


def traced(callback):
    """The decisions that rest on a trace; an early one rests on the first steps alone."""
    early = [d for d in callback.decisions if d.reason.startswith("By the first steps")]
    return [decision for decision in callback.decisions if decision not in early]


def profiles(logdir):
    return sorted(logdir.glob("plugins/profile/*/*.xplane.pb"))


def test_it_finds_that_training_waits_and_echoes(tmp_path, capsys):
    with dataset(seconds=0.06) as data:
        callback = DataEchoCallback(data, tmp_path, max_factor=3.0)
        history = model().fit(data, epochs=2, verbose=0, callbacks=[callback])
        assert data.echo_factor == 3.0
    early, first = callback.decisions[:2]
    assert (early.step, early.previous_factor, early.factor) == (10, 1.0, 3.0)
    assert early.breakdown.origin == "counters"
    assert early.breakdown.ratio > 3
    assert first.step == 20  # within warm-up and one window
    assert (first.previous_factor, first.factor) == (3.0, 3.0)
    assert first.breakdown.origin == "trace"
    assert first.breakdown.complete
    assert first.breakdown.ratio > 3
    assert first.breakdown.steps == 10
    assert first.breakdown.wait_fraction >= 0.0
    assert profiles(tmp_path)
    assert history.history["echo_factor"] == [3.0, 3.0]
    ratios = [decision.ratio for decision in callback.decisions]
    assert set(history.history["echo_ratio"]) <= set(ratios)
    printed = capsys.readouterr().out
    assert "\nEpoch 1: DataEchoCallback raises echo_factor from 1 to 3. By the first" in printed
    assert "above max_factor 3: at 3 it waits" in printed
    wait = first.breakdown.wait_fraction
    assert f"above max_factor 3: training waited {wait:.0%} of the time at 3" in printed
    assert [row.split()[0] for row in callback.report().splitlines()[1:3]] == ["10", "20"]


class Busy(keras.callbacks.Callback):
    """Makes steps longer."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(self.seconds)


def test_training_that_does_not_wait_is_left_alone(tmp_path):
    with dataset(seconds=0.001) as data:
        callback = DataEchoCallback(data, tmp_path, verbose=0)
        model().fit(data, epochs=3, verbose=0, callbacks=[Busy(0.01), callback])
        assert data.echo_factor == 1.0
    assert [decision.factor for decision in callback.decisions][:1] == [1.0]
    assert callback.decisions[0].breakdown.steps == 10


def test_it_measures_only_where_it_may_not_adapt(tmp_path):
    with dataset() as data:
        callback = DataEchoCallback(data, tmp_path, adapt=False, verbose=0)
        model().fit(data, verbose=0, callbacks=[callback])
        assert data.echo_factor == 1.0
    assert callback.decisions[0].breakdown.recommended_factor > 1
    assert callback.decisions[0].reason.endswith("adapt=False")


def test_a_later_window_shows_all_of_the_wait(tmp_path):
    with dataset(seconds=0.08, steps=50) as data:
        callback = DataEchoCallback(data, tmp_path, adapt=False, profile_freq=20, verbose=0)
        model().fit(data, verbose=0, callbacks=[Busy(0.02), callback])
    found = callback.decisions[1].breakdown
    # Training that starves takes a step for each fresh batch.
    assert found.step_seconds > 0.9 * found.upstream_seconds
    assert found.wait_fraction > 0.55


@pytest.mark.parametrize("own", [None, 5])
def test_while_it_adapts_a_batch_may_be_used_up_to_max_factor(tmp_path, own):
    seen = []

    class Notes(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(data.max_uses)

    with dataset(0.001, max_uses=own) as data:
        for adapt in (True, False):
            callback = DataEchoCallback(data, tmp_path, max_factor=3.0, adapt=adapt, verbose=0)
            model().fit(data, verbose=0, callbacks=[callback, Notes()])
    assert set(seen[:32]) == {own or 3.0}
    assert set(seen[32:]) == {own}
    assert data.max_uses == own


def test_training_that_does_not_wait_sees_each_batch_once_and_in_order(recorder):
    with EchoingPyDataset(Slow(0.001), steps_per_epoch=60, shuffle=False) as data:
        trained = recorder(is_built=False)
        trained.fit(data, verbose=0, callbacks=[Busy(0.01), DataEchoCallback(data, verbose=0)])
        assert data.stats().extra_uses == 0
    assert trained.trained_on() == [*range(60)]


def test_tensorboard_shows_what_was_decided(tmp_path):
    with dataset() as data:
        callback = DataEchoCallback(data, tmp_path, verbose=0)
        model().fit(data, epochs=2, verbose=0, callbacks=[callback])
    events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    tags = events.Tags()
    names = ("factor", "ratio", "window_ratio", "upstream_ms", "downstream_ms", "wait_fraction")
    assert {f"keras_echo/{name}" for name in (*names, "fresh_fraction", "passes")} <= set(
        tags["scalars"]
    )
    assert {"keras_echo/decision/text_summary", "custom_scalars__config__"} & set(tags["tensors"])
    ratios = [event.value for event in events.Scalars("keras_echo/ratio")]
    assert ratios == pytest.approx([decision.ratio for decision in callback.decisions], rel=1e-6)
    factors = [event.value for event in events.Scalars("keras_echo/factor")]
    assert factors[-1] == pytest.approx(data.echo_factor, rel=1e-6)


def test_without_a_log_directory_nothing_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with dataset() as data:
        callback = DataEchoCallback(data, verbose=0)
        model().fit(data, verbose=0, callbacks=[callback])
    assert traced(callback)[0].breakdown.origin == "trace"
    assert not list(tmp_path.rglob("*tfevents*"))
    del callback
    assert not list(tmp_path.iterdir())


def test_counters_serve_while_somebody_else_profiles(tmp_path, capsys):
    other = Tracer()
    other.start(tmp_path / "other")
    try:
        with dataset() as data:
            callback = DataEchoCallback(data, tmp_path)
            model().fit(data, epochs=2, verbose=0, callbacks=[callback])
            assert data.echo_factor > 1
    finally:
        other.discard()
    assert {decision.breakdown.origin for decision in callback.decisions} == {"counters"}
    first, *later = traced(callback)
    assert f"From counters: The {BACKEND} profiler must be free" in first.reason
    assert all(decision.reason.endswith("(from counters)") for decision in later)
    printed = capsys.readouterr().out
    assert printed.count("must be free") == 1
    assert ".." not in printed.replace("(...", "")


def test_a_log_directory_that_cannot_be_written_to_ends_no_training(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with dataset() as data:
        callback = DataEchoCallback(data, blocked / "logs", verbose=0)
        with pytest.warns(RuntimeWarning, match="must take TensorBoard's curves") as caught:
            model().fit(data, epochs=2, verbose=0, callbacks=[callback])
        assert data.echo_factor > 1
    assert sum("log_dir" in str(warning.message) for warning in caught) == 1
    assert {decision.breakdown.origin for decision in callback.decisions} == {"counters"}
    assert "must take a trace" in traced(callback)[0].reason


def test_a_trace_that_cannot_be_written_leaves_no_profiler_open(tmp_path):
    tracer = Tracer()
    tracer.start(tmp_path)
    (scratch,) = tmp_path.glob(".window-*")
    shutil.rmtree(scratch)
    scratch.write_text("in the way")
    with pytest.raises(ProfilerError) as failed:
        tracer.stop()
    assert scratch.name not in str(failed.value)  # the same reason each time
    scratch.unlink()
    tracer.discard()
    tracer.start(tmp_path)
    with tracer.step(0):
        time.sleep(0.001)
    tracer.stop()
    assert tracer.write().exists()
    assert not [*tmp_path.glob(".window-*")]


class Interrupt(keras.callbacks.Callback):
    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.batch:
            raise KeyboardInterrupt


@pytest.mark.parametrize("is_same", [True, False], ids=["same callback", "another callback"])
def test_interrupted_in_a_window_the_next_fit_profiles_again(tmp_path, is_same):
    trained = model()
    with dataset() as data:
        interrupted = DataEchoCallback(data, tmp_path, verbose=0)
        with pytest.raises(KeyboardInterrupt):
            trained.fit(data, verbose=0, callbacks=[interrupted, Interrupt(14)])
        callback = interrupted if is_same else DataEchoCallback(data, tmp_path, verbose=0)
        trained.fit(data, verbose=0, callbacks=[callback])
    assert {decision.breakdown.origin for decision in traced(callback)} == {"trace"}
    assert len(profiles(tmp_path)) == len(traced(callback))
    assert not list(tmp_path.glob(".window-*"))


def test_a_change_in_the_midst_of_an_epoch_is_followed(tmp_path):
    source = Slow(0.012)

    class SlowDown(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            time.sleep(0.003)  # so that steps are alike
            if batch == 200:
                source.seconds = 0.06

    with EchoingPyDataset(source, steps_per_epoch=1000) as data:
        callback = DataEchoCallback(data, tmp_path, max_factor=50.0, verbose=0)
        model().fit(data, verbose=0, callbacks=[SlowDown(), callback])
    before = [d.breakdown.upstream_seconds for d in callback.decisions if d.step <= 200]
    after = [d.breakdown.upstream_seconds for d in callback.decisions if d.step > 220]
    assert after
    assert max(before) < 0.03 < after[-1]
    assert callback.decisions[-1].factor > max(d.factor for d in callback.decisions[: len(before)])


class LongValidation(keras.callbacks.Callback):
    def on_test_end(self, logs=None):
        time.sleep(0.5)


def test_readers_that_rest_during_a_validation_have_a_reason(tmp_path):
    validation = np.zeros((8, 4), "float32"), np.zeros((8, 1), "float32")
    source = Slow(0.06)
    held = []  # seconds, by the end of each step; the first one compiles
    with EchoingPyDataset(source, steps_per_epoch=40, workers=2) as data:
        callback = DataEchoCallback(data, tmp_path, profile_freq=40, verbose=0)
        count = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: held.append(data.stats().held_seconds)
        )
        model().fit(
            data,
            epochs=5,
            verbose=0,
            validation_data=validation,
            callbacks=[Busy(0.01), callback, LongValidation(), count],
        )
    factors = [decision.factor for decision in callback.decisions]
    assert len(factors) >= 2
    assert min(factors) > 0.7 * max(factors)
    assert held[-1] - held[0] < 0.5  # of five validations of half a second


def test_reads_in_worker_processes_are_in_the_trace(tmp_path):
    options = {"workers": 2, "use_multiprocessing": True}
    with EchoingPyDataset(Slow(0.02), steps_per_epoch=32, **options) as data:
        callback = DataEchoCallback(data, tmp_path, max_factor=2.0, verbose=0)
        model().fit(data, verbose=0, callbacks=[callback])
    found = traced(callback)[0].breakdown
    assert (found.origin, found.num_readers) == ("trace", 2)
    assert found.upstream_seconds > 0.009


def test_steps_go_on_over_several_fits(tmp_path):
    trained = model()
    with dataset() as data:
        callback = DataEchoCallback(data, tmp_path, adapt=False, verbose=0)
        for _ in range(2):
            trained.fit(data, verbose=0, callbacks=[callback])
    assert [decision.step for decision in callback.decisions] == [20, 52]


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no steps_per_execution on PyTorch")
def test_several_steps_per_execution(tmp_path):
    with dataset(steps=64) as data:
        callback = DataEchoCallback(data, tmp_path, verbose=0)
        model(steps_per_execution=4).fit(data, verbose=0, callbacks=[callback])
    decision = callback.decisions[0]
    assert decision.breakdown.origin == "trace"
    assert decision.factor > 1
    assert decision.step == 24  # after the warm-up, three calls from step 12 on
    assert decision.breakdown.steps == 12


def test_running_eagerly(tmp_path):
    with dataset(seconds=0.1) as data:  # much longer than an eager step
        callback = DataEchoCallback(data, tmp_path, verbose=0)
        model(run_eagerly=True).fit(data, verbose=0, callbacks=[callback])
        assert data.echo_factor > 1
    assert traced(callback)[0].breakdown.origin == "trace"


def test_beside_other_callbacks_and_validation(tmp_path):
    csv = tmp_path / "log.csv"
    with dataset() as data:
        callback = DataEchoCallback(data, tmp_path / "logs", verbose=0)
        others = [
            keras.callbacks.TensorBoard(
                tmp_path / "logs", profile_batch=(12, 14) if BACKEND == "tensorflow" else 0
            ),
            keras.callbacks.ModelCheckpoint(tmp_path / "model.keras", save_freq=15),
            keras.callbacks.BackupAndRestore(tmp_path / "backup"),
            keras.callbacks.EarlyStopping(patience=10),
            keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / (epoch + 1)),
            keras.callbacks.CSVLogger(csv),
        ]
        validation = np.zeros((8, 4), "float32"), np.zeros((8, 1), "float32")
        model().fit(
            data, epochs=2, verbose=0, validation_data=validation, callbacks=[callback, *others]
        )
        assert data.echo_factor > 1
    # Keras's profiler comes second: it logs that and goes on.
    assert traced(callback)[0].breakdown.origin == "trace"
    assert "echo_factor,echo_ratio" in csv.read_text().splitlines()[0]


def test_keras_does_not_wait_for_the_device_on_its_behalf():
    """Where Keras can, it converts logs on another thread, unless a callback minds."""

    class Loss:
        def __float__(self):
            threads.append(threading.current_thread() is threading.main_thread())
            return 0.0

    seen = []
    with dataset() as data:
        for callback in ([], [DataEchoCallback(data)]):
            threads = []
            callbacks = keras.callbacks.CallbackList(callback, model=model())
            callbacks.on_train_begin()
            callbacks.on_train_batch_end(0, {"loss": Loss()})
            callbacks.on_train_end()
            seen.append(threads)
    assert seen[0]
    assert seen[1] == seen[0]


@pytest.mark.skipif(BACKEND != "jax", reason="shown where dispatch is asynchronous")
def test_it_waits_for_the_device_in_windows_only(tmp_path, monkeypatch):
    import jax

    waits, original = [], jax.block_until_ready
    callback = None

    def block_until_ready(values):
        waits.append(callback._window is not None)
        return original(values)

    monkeypatch.setattr(jax, "block_until_ready", block_until_ready)
    with dataset(steps=60) as data:
        callback = DataEchoCallback(data, tmp_path, verbose=0)
        model().fit(data, verbose=0, callbacks=[callback])
    assert waits
    assert all(waits)


def test_a_factor_alone_is_measured_too(tmp_path):
    tf = pytest.importorskip("tensorflow")
    factor = keras_echo.EchoFactor()

    def slow():
        for index in range(100):
            time.sleep(0.02)
            yield np.full((8, 4), index, "float32"), np.zeros((8, 1), "float32")

    signature = (tf.TensorSpec((8, 4)), tf.TensorSpec((8, 1)))
    data = tf.data.Dataset.from_generator(slow, output_signature=signature)
    data = data.apply(keras_echo.echo(factor)).repeat()
    callback = DataEchoCallback(factor, tmp_path, verbose=0)
    model().fit(data, steps_per_epoch=24, shuffle=False, verbose=0, callbacks=[callback])
    decision = callback.decisions[0]
    if BACKEND == "tensorflow":
        assert decision.breakdown.origin == "trace"
        assert factor.value > 1
    else:
        # The training thread's wait is inside tf.data, where no other profiler looks.
        assert factor.value >= 1


def test_bad_arguments_say_what_to_do():
    data = keras_echo.EchoFactor()
    for kind, options, message in (
        (TypeError, {"dataset_or_factor": 3}, "dataset_or_factor must be an EchoingPyDataset or"),
        (ValueError, {"min_factor": 0.5}, "min_factor must be finite and at least 1"),
        (TypeError, {"max_factor": "8"}, "max_factor must be a real number"),
        (
            ValueError,
            {"min_factor": 4, "max_factor": 2},
            "max_factor must be at least min_factor 4",
        ),
        (ValueError, {"profile_steps": 2}, "profile_steps must be at least 3"),
        (ValueError, {"profile_freq": 0}, 'profile_freq must be "epoch" or a number of'),
        (TypeError, {"profile_freq": "batch"}, 'profile_freq must be "epoch" or a number of'),
        (ValueError, {"warmup_steps": -1}, "warmup_steps must be at least 0"),
    ):
        with pytest.raises(kind, match=message) as caught:
            DataEchoCallback(**{"dataset_or_factor": data, **options})
        assert "Received: " in str(caught.value)


def test_report_and_plot(tmp_path):
    with dataset() as data:
        callback = DataEchoCallback(data, verbose=0)
        assert callback.report().startswith("No decision yet")
        with pytest.raises(ValueError, match="decisions must hold a decision"):
            callback.plot(tmp_path / "none.png")
        model().fit(data, verbose=0, callbacks=[callback])
    assert math.isfinite(callback.decisions[0].breakdown.ratio)
    callback.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("trains_on", ["another dataset", "the source"])
def test_a_callback_on_another_dataset_says_what_to_pass(tmp_path, trains_on):
    with dataset(0.001) as data, dataset(0.001) as other:
        trained_on = other if trains_on == "another dataset" else Slow(0.001, length=32)
        callback = DataEchoCallback(data, tmp_path, verbose=0)
        with pytest.raises(ValueError, match="must be the one that fit") as caught:
            model().fit(trained_on, verbose=0, callbacks=[callback])
        assert "model.fit(dataset, callbacks=[DataEchoCallback(dataset)])" in str(caught.value)
        assert callback.decisions == []
        assert data.echo_factor == other.echo_factor == 1.0


@pytest.mark.parametrize("form", ["tf", "grain", "generator"])
def test_a_dataset_that_is_trained_on_in_another_form_is_known(tmp_path, form):
    pytest.importorskip({"tf": "tensorflow", "grain": "grain", "generator": "keras"}[form])
    with dataset(0.002) as data:
        trained_on = (
            data.as_tf_dataset()
            if form == "tf"
            else data.as_grain()
            if form == "grain"
            else (data[index] for index in range(1000))
        )
        # A window that is as early and as short as can be.
        options = {"warmup_steps": 0, "profile_steps": 3, "verbose": 0}
        callback = DataEchoCallback(data, tmp_path, **options)
        model().fit(trained_on, steps_per_epoch=30, shuffle=False, verbose=0, callbacks=[callback])
    assert callback.decisions


def test_a_deep_copy_shares_the_factor_and_nothing_else(tmp_path):
    trained = model()
    # What a shuffle buffer still held at factor 1 would put off the next first decision.
    with dataset(seconds=0.06, shuffle_buffer=0) as data:
        callback = DataEchoCallback(data, tmp_path, max_factor=3.0, verbose=0)
        early = copy.deepcopy(callback)
        trained.fit(data, verbose=0, callbacks=[callback])
        late = copy.deepcopy([callback])[0]
        for other in (early, late):
            assert (other.decisions, other.params, other.model) == ([], None, None)
            data.echo_factor = 1.0
            trained.fit(data, verbose=0, callbacks=[other])
            assert data.echo_factor == 3.0
            assert other.decisions[0].step == callback.decisions[0].step
    assert {d.breakdown.origin for d in traced(early) + traced(late)} == {"trace"}


def test_a_callback_list_without_parameters(tmp_path):
    trained = model()
    with dataset(0.005) as data:
        callback = DataEchoCallback(data, tmp_path, verbose=0)
        callbacks = keras.callbacks.CallbackList([callback], model=trained)
        callbacks.on_train_begin()
        for epoch in range(2):
            callbacks.on_epoch_begin(epoch)
            for batch in range(30):
                inputs, targets = data[batch]
                callbacks.on_train_batch_begin(batch)
                logs = {"loss": trained.train_on_batch(inputs, targets)}
                callbacks.on_train_batch_end(batch, logs)
            callbacks.on_epoch_end(epoch, {})
        callbacks.on_train_end()
    assert [decision.step for decision in callback.decisions][:2] == [10, 20]
    assert callback._first_step == 60


LEAVES_A_WINDOW_OPEN = """
import keras, numpy as np, sys
from keras_echo import DataEchoCallback, EchoingPyDataset

class Interrupt(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if batch == 14:
            raise KeyboardInterrupt

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
data = EchoingPyDataset((np.zeros((100, 4)), np.zeros((100, 1))), batch_size=4)
callback = DataEchoCallback(data, sys.argv[1], verbose=0)
try:
    model.fit(data, verbose=0, callbacks=[callback, Interrupt()])
except KeyboardInterrupt:
    print(callback._tracer.active)
"""


def test_a_script_that_ends_in_a_window_ends_clean(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_A_WINDOW_OPEN, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "True"), done.stderr
    assert not list(tmp_path.glob(".window-*"))
