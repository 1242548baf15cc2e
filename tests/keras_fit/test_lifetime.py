"""However fit() ends, nothing is left running (see tests/conftest.py), and it works again."""

import _thread
import asyncio
import contextlib
import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import keras
import numpy as np
import pytest

from keras_echo import EchoingPyDataset
from keras_echo.serving.pipeline import Served

BACKEND = keras.backend.backend()


def model_of_one_layer():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


class At(keras.callbacks.Callback):
    """Does something at the end of one batch."""

    def __init__(self, batch, action):
        super().__init__()
        self.batch, self.action = batch, action

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.batch:
            self.action(self.model)


def fail(model):
    raise ArithmeticError("the model's own fault")


@pytest.mark.parametrize("augment", [None, lambda batch: batch], ids=["plain", "augmented"])
def test_after_an_exception_in_training(numbered, augment):
    dataset = EchoingPyDataset(numbered(8, workers=3), echo_factor=2, augment=augment)
    with pytest.raises(ArithmeticError):
        model_of_one_layer().fit(dataset, callbacks=[At(3, fail)], verbose=0)
    model_of_one_layer().fit(dataset, epochs=2, verbose=0)


def test_after_stop_training(numbered):
    dataset = EchoingPyDataset(numbered(8, workers=3), echo_factor=2)
    model = model_of_one_layer()
    stop = At(3, lambda model: setattr(model, "stop_training", True))
    model.fit(dataset, callbacks=[stop], verbose=0)
    model.fit(dataset, epochs=2, verbose=0)


def test_after_ctrl_c(numbered):
    dataset = EchoingPyDataset(numbered(8, workers=3), echo_factor=2)
    model = model_of_one_layer()
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            dataset, epochs=50, callbacks=[At(3, lambda _: _thread.interrupt_main())], verbose=0
        )
    model_of_one_layer().fit(dataset, epochs=2, verbose=0)


def test_ctrl_c_while_waiting_for_a_stalled_source(numbered):
    release = threading.Event()

    class Stalled(numbered):
        def __getitem__(self, index):
            release.wait(20)
            return super().__getitem__(index)

    dataset = EchoingPyDataset(Stalled(4))
    threading.Timer(0.2, _thread.interrupt_main).start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        dataset[0]
    assert time.monotonic() - begin < 10
    release.set()
    assert dataset[0][0].shape == (4, 1)


# An interruption that comes in a finalizer, ours or JAX's, is swallowed there by Python.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "options",
    [
        {"echo_factor": 2.5},
        {"echo_factor": 1.5, "augment": lambda batch: batch},
        {"echo_factor": 2, "shuffle_buffer": 4, "workers": 3},
        {"echo_factor": 1.5, "echo": "example", "shuffle_buffer": 16},
    ],
    ids=["batch", "augmented", "shuffled", "example"],
)
def test_ctrl_c_may_come_between_any_two_steps(numbered, options):
    """Nothing hangs, no batch comes twice, and those that follow are right."""

    class CtrlC(KeyboardInterrupt):
        pass

    def ctrl_c(*_):
        raise CtrlC

    def made():
        return EchoingPyDataset(numbered(9), seed=3, steps_per_epoch=10**6, **options)

    def serve(dataset):
        return keras.ops.convert_to_numpy(dataset[5][0]).ravel().tolist()

    moments = random.Random(0)
    with made() as undisturbed:
        expected = [serve(undisturbed) for _ in range(4000)]
    before = signal.signal(signal.SIGALRM, ctrl_c)
    num_interrupts = num_after = num_lost = 0
    with made() as dataset:
        while num_interrupts < 200 and num_after < 3900:
            got = []
            with contextlib.suppress(CtrlC):
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(2e-5, 1e-3))
                while len(got) < 50:
                    got.append(dataset[5])
            with contextlib.suppress(CtrlC):
                signal.setitimer(signal.ITIMER_REAL, 0)
            num_interrupts += len(got) < 50
            num_got = num_after + len(got)
            num_after = dataset.stats().steps
            num_lost += num_after - num_got
            assert serve(dataset) == expected[num_after]
            num_after += 1
    signal.signal(signal.SIGALRM, before)
    assert num_interrupts > 50
    # Whoever is interrupted while he is handed a batch may have it or not: nobody can tell.
    assert 0 <= num_lost < num_interrupts / 10


def test_closing_while_training_waits(numbered):
    release = threading.Event()

    class Stalled(numbered):
        def __getitem__(self, index):
            release.wait(20)
            return super().__getitem__(index)

    dataset = EchoingPyDataset(Stalled(4), augment=lambda batch: batch, shuffle=False)
    timers = [threading.Timer(0.2, dataset.close), threading.Timer(0.4, release.set)]
    for timer in timers:
        timer.start()
    with pytest.raises(RuntimeError, match="closed while a batch was waited for"):
        dataset[0]
    assert dataset[0][0].max() == 0
    assert dataset[0][0].max() == 1


def test_close_is_idempotent_and_forgotten_datasets_end(numbered):
    with EchoingPyDataset(numbered(4)) as dataset:
        dataset[0]
        dataset.close()
        dataset.close()
    for _ in range(5):
        EchoingPyDataset(numbered(4, workers=4))[0]


class Failing(keras.utils.PyDataset):
    """Fails the first `times` that batch 3 is read."""

    def __init__(self, times, **kwargs):
        super().__init__(**kwargs)
        self.left = times

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 3 and self.left:
            self.left -= 1
            raise OSError("disk gone")
        x = np.full((2, 1), index, "float32")
        return x, x


@pytest.mark.parametrize("augment", [None, lambda batch: batch], ids=["plain", "augmented"])
def test_what_the_source_raises_arrives_with_the_index(augment, recorder):
    note = "keras_echo was reading batch 3 of the source."
    dataset = EchoingPyDataset(
        Failing(1),
        echo_factor=2,
        shuffle=False,
        shuffle_buffer=0,
        augment=augment,
        placement="host",
    )
    with pytest.raises(Exception, match="disk gone") as caught:
        model_of_one_layer().fit(dataset, verbose=0)
    if BACKEND == "tensorflow":  # Keras's pipeline there turns every exception into UnknownError
        assert "OSError: disk gone" in str(caught.value)
        assert note in str(caught.value)
    else:
        assert type(caught.value) is OSError
        assert caught.value.__notes__ == [note]
    # The failed batch is tried again: nothing is skipped.
    assert [int(dataset[5][0].max()) for _ in range(4)] == [3, 3, 4, 4]
    model_of_one_layer().fit(dataset, verbose=0)


def test_failing_reads_can_be_skipped(recorder):
    model = recorder()
    with EchoingPyDataset(Failing(99), on_error="skip", shuffle=False, workers=2) as dataset:
        with pytest.warns(RuntimeWarning, match=r"skipped: OSError\('disk gone'\). .* batch 3"):
            model.fit(dataset, verbose=0)
        model.fit(dataset, verbose=0)
        assert dataset.stats().skipped_reads in (2, 3)
    assert model.trained_on() == [0, 1, 2, 4, 5, 6, 7, 0, 1, 2, 4, 5, 6, 7, 0, 1]


@pytest.mark.filterwarnings("ignore:A read failed and was skipped:RuntimeWarning")
def test_a_source_that_always_fails_raises_after_a_pass():
    class Broken(Failing):
        num_reads = 0

        def __getitem__(self, index):
            self.num_reads += 1
            raise OSError(f"no {index}")

    source = Broken(0)
    with EchoingPyDataset(source, on_error="skip", shuffle=False, max_queue_size=1) as dataset:
        with pytest.raises(OSError, match="no 7"):
            dataset[0]
        assert 8 <= source.num_reads <= 9


class InProcess(keras.utils.PyDataset):
    """Tells by whom it was read; at module level, so that it can be pickled."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.order = [0, 2, 1, 3]  # reversed before the first pass

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 0 and self.order is None:
            raise OSError("disk gone")
        x = np.array([[self.order[index], os.getpid()]], "float64")
        return x, x[:, :1]

    def on_epoch_end(self):
        self.order = self.order[::-1]


@pytest.mark.timeout(240)
def test_processes_read_the_source_and_know_its_epochs():
    source = InProcess(workers=2, use_multiprocessing=True, max_queue_size=2)
    with EchoingPyDataset(source, shuffle=False, steps_per_epoch=8) as dataset:
        batches = [dataset[i][0][0] for i in range(8)]
    assert [batch[0] for batch in batches] == [3, 1, 2, 0, 0, 2, 1, 3]
    assert os.getpid() not in {int(batch[1]) for batch in batches}


def test_no_process_lives_when_closing_returns():
    options = {"workers": 2, "use_multiprocessing": True, "echo_factor": 2}
    with EchoingPyDataset(InProcess(), augment=lambda batch: batch, **options) as dataset:
        dataset[0]
        assert multiprocessing.active_children()
        dataset.close()
        assert not multiprocessing.active_children()


@pytest.mark.timeout(240)
def test_ctrl_c_while_processes_start_ends_none_of_them(tmp_path):
    """A terminal sends Ctrl-C to all of them, those included that can't ignore it yet."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, threading
            import numpy as np, keras, keras_echo

            class Source(keras.utils.PyDataset):
                def __len__(self):
                    return 4
                def __getitem__(self, index):
                    return np.full((2, 1), index), np.zeros((2, 1))

            def main():
                signal.signal(signal.SIGINT, signal.default_int_handler)
                dataset = keras_echo.EchoingPyDataset(
                    Source(workers=2, use_multiprocessing=True), shuffle=False
                )
                for seconds in (0.02, 0.2, 1.0):
                    timer = threading.Timer(seconds, os.killpg, (0, signal.SIGINT))
                    timer.start()
                    try:
                        dataset[0]
                        timer.cancel()
                        timer.join()
                        break
                    except KeyboardInterrupt:
                        continue
                print("alive", len(dataset[0][0]))
                dataset.close()

            if __name__ == "__main__":
                main()
            """
        )
    )
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=200,
        start_new_session=True,
    )
    assert (done.returncode, done.stdout) == (0, "alive 2\n"), done.stderr
    assert "Traceback" not in done.stderr


def test_a_script_ends_though_a_read_never_does(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import threading, time
            import numpy as np, keras, keras_echo

            class Source(keras.utils.PyDataset):
                def __len__(self):
                    return 3
                def __getitem__(self, index):
                    if index == 2:
                        time.sleep(1000)
                    return np.zeros((2, 1)), np.zeros((2, 1))

            dataset = keras_echo.EchoingPyDataset(Source(), shuffle=False)
            dataset[0]
            print("through")
            """
        )
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "through\n"


def test_calls_from_many_threads_get_every_batch_once(numbered):
    served, lock = [], threading.Lock()
    with EchoingPyDataset(
        numbered(50), echo_factor=2, shuffle=False, shuffle_buffer=0, workers=2, placement="host"
    ) as dataset:

        def call():
            for index in range(3, 28):
                number = int(dataset[index][0].max())
                with lock:
                    served.append(number)

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(served) == [number for number in range(50) for _ in range(2)]


@pytest.mark.parametrize("echo", ["batch", "example"])
@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("is_sequential", [False, True])
def test_no_exception_of_a_source_loses_a_batch(numbered, error, echo, is_sequential):
    places = [2, 3, 7]

    class Raising(numbered):
        def __getitem__(self, index):
            if places and index == places[0]:
                raise error(places.pop(0))
            return super().__getitem__(index)

    data = Raising(10)
    source = (lambda: map(data.__getitem__, range(10))) if is_sequential else data
    options = {"shuffle_buffer": 1} if echo == "example" else {}
    options |= {"shuffle": False, "echo_factor": 1.5, "echo": echo, "steps_per_epoch": 10}
    options["seed"] = 1  # of the shuffle buffer
    with EchoingPyDataset(numbered(10), **options) as dataset:
        dataset.on_epoch_begin()
        undisturbed = [dataset[0][0].tolist() for _ in range(12)]
    served, raised = [], 0
    with EchoingPyDataset(source, **options) as dataset:
        dataset.on_epoch_begin()
        while len(served) < 12:
            try:
                served.append(dataset[0][0].tolist())
            except error:
                raised += 1
    assert served == undisturbed
    assert 1 <= raised <= 3  # what was read ahead may be read again before its failure is heard of
    assert not places


def test_a_batch_that_could_not_be_handed_out_is_still_due(numbered, monkeypatch):
    hand_out, failures = Served.hand_out, [MemoryError(), KeyboardInterrupt()]

    def failing(served, **arguments):
        if failures and served.before.num_steps == 3:
            raise failures.pop()
        return hand_out(served, **arguments)

    monkeypatch.setattr(Served, "hand_out", failing)
    with EchoingPyDataset(numbered(8), shuffle=False) as dataset:
        dataset.on_epoch_begin()
        served = []
        while len(served) < 6:
            try:
                served.append(int(dataset[0][0].max()))
            except (MemoryError, KeyboardInterrupt):
                assert dataset.stats().steps == 3
    assert served == [0, 1, 2, 3, 4, 5]


READERS_IN_TORCH = """
import keras, keras_echo, numpy as np, torch

class Source(keras.utils.PyDataset):
    def __len__(self):
        return 50

    def __getitem__(self, index):
        x = torch.randn(700, 700)
        for _ in range(12):
            x = (x @ x).tanh()
        return x[:4, :1].numpy(), np.zeros((4, 1), "float32")

dataset = keras_echo.EchoingPyDataset(Source(workers=4))
dataset[0], dataset[1]
"""


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch aborts the process")
def test_a_script_may_end_while_readers_are_inside_of_pytorch():
    subprocess.run([sys.executable, "-c", READERS_IN_TORCH], timeout=100, check=True)


@pytest.mark.skipif(BACKEND != "torch", reason="the loader is PyTorch's")
def test_closing_ends_the_worker_processes_of_a_loader():
    import torch

    data = torch.utils.data.TensorDataset(torch.arange(40.0)[:, None], torch.zeros(40, 1))
    loader = torch.utils.data.DataLoader(
        data, batch_size=4, num_workers=1, multiprocessing_context="spawn"
    )
    with EchoingPyDataset(loader) as dataset:
        dataset.on_epoch_begin()
        assert float(dataset[0][0].max()) == 3
        assert multiprocessing.active_children()
        dataset.close()
        gc.collect()
        assert not multiprocessing.active_children()
        assert float(dataset[1][0].max()) == 7
