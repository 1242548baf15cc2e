"""Several fits in one process: beside each other, inside of each other, on any thread."""

import threading

import keras
import pytest
from recorder import Numbered, Recorder

from keras_echo import DataEchoCallback, EchoingPyDataset
from keras_echo.profiling.recording.sessions import ProfilerBusyError
from keras_echo.profiling.recording.tracer import Tracer

LENGTH = 40


def echoing(**options):
    return EchoingPyDataset(Numbered(LENGTH, workers=2), shuffle=False, shuffle_buffer=0, **options)


def fit(dataset, log_dir, *callbacks, epochs=2):
    """Trains; returns the batches that were used, and the decisions."""
    callback = DataEchoCallback(
        dataset,
        log_dir,
        profile_freq=10,
        profile_steps=3,
        warmup_steps=2,
        adapt=False,
        verbose=0,
    )
    model = Recorder()
    model.fit(dataset, epochs=epochs, callbacks=[callback, *callbacks], verbose=0)
    return model.trained_on(), callback.decisions


def on_threads(*functions):
    """Calls each on a thread of its own; returns what they return, or raises what one raises."""
    results = [None] * len(functions)

    def call(place):
        try:
            results[place] = functions[place]()
        except BaseException as error:
            results[place] = error

    threads = [threading.Thread(target=call, args=(n,), daemon=True) for n in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
        assert not thread.is_alive()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def test_fit_on_a_thread_that_is_not_the_main_one(tmp_path):
    with echoing() as dataset:
        ((used, decisions),) = on_threads(lambda: fit(dataset, tmp_path))
    assert used == list(range(LENGTH)) * 2
    assert decisions


def test_two_fits_on_two_threads_don_t_touch_each_other(tmp_path):
    """One profiler session at a time: whoever has none decides by counters."""
    with echoing() as one, echoing(echo_factor=2) as other:
        (used, decisions), (echoed, _) = on_threads(
            lambda: fit(one, tmp_path / "one"), lambda: fit(other, tmp_path / "other")
        )
    assert used == list(range(LENGTH)) * 2
    assert echoed == [index for index in range(LENGTH) for _ in range(2)]
    assert decisions
    assert not list(tmp_path.glob("*/.window-*"))


class Inside(keras.callbacks.Callback):
    """Does something before one batch, and keeps what it returns."""

    def __init__(self, batch, function):
        super().__init__()
        self.batch, self.function, self.result = batch, function, None

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.batch and self.result is None:
            self.result = self.function()


@pytest.mark.parametrize("batch", [0, 3, 15])
def test_fit_inside_of_a_callback(tmp_path, batch):
    with echoing() as outer, echoing(echo_factor=2) as inner:
        inside = Inside(batch, lambda: fit(inner, tmp_path / "inner"))
        used, decisions = fit(outer, tmp_path / "outer", inside)
    assert used == list(range(LENGTH)) * 2
    assert inside.result[0] == [index for index in range(LENGTH) for _ in range(2)]
    assert decisions
    assert not list(tmp_path.glob("*/.window-*"))


def test_fit_inside_of_a_callback_on_the_same_dataset(tmp_path):
    """They share the stream: each of its batches is used by one of them."""
    with echoing() as dataset:
        inside = Inside(5, lambda: fit(dataset, tmp_path / "inner", epochs=1))
        used, _ = fit(dataset, tmp_path / "outer", inside)
    # In the order of the outer fit, the inner one's place in it aside.
    assert sorted(used + inside.result[0]) == sorted(list(range(LENGTH)) * 3)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="others check that by themselves")
def test_no_session_begins_while_another_one_is_being_written(tmp_path, monkeypatch):
    """PyTorch would end the process, at times."""
    from torch.autograd.profiler import profile

    export, one, other = profile.export_chrome_trace, Tracer(), Tracer()

    def while_exporting(session, path):
        with pytest.raises(ProfilerBusyError):
            other.start(tmp_path)
        export(session, path)

    monkeypatch.setattr(profile, "export_chrome_trace", while_exporting)
    one.start(tmp_path)
    with one.step(0):
        keras.ops.ones(3) + 1
    one.stop()
    one.discard()
    other.start(tmp_path)
    other.discard()
