"""Training goes on through reads that hang, fail for a while, or return something else."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from keras_echo import DataEchoCallback, EchoingPyDataset, Retry, Skip, SkippedRead

BACKEND = keras.backend.backend()
SKIPPED = "ignore:A read failed and was skipped:RuntimeWarning"
READS = ["threads", "sequence"]


def batch_of(index):
    x = np.full((4, 1), index, "float32")
    return x, np.zeros((4, 1), "float32")


class Unreliable(keras.utils.PyDataset):
    """Batch i is full of i. What `trouble` says happens at the first reads of an index.

    Args:
        trouble: By its index, how often a batch can't be read; or "stuck": its first read doesn't
            return before the gate is opened.
    """

    def __init__(self, trouble, length=8, **options):
        super().__init__(**options)
        self.trouble = dict(trouble)
        self.length = length
        self.gate = threading.Event()

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        trouble = self.trouble.get(index, 0)
        if trouble == "stuck":
            self.trouble[index] = 0
            assert self.gate.wait(100)
            return batch_of(1000)
        if trouble:
            self.trouble[index] -= 1
            raise OSError(f"batch {index} is gone")
        return batch_of(index)


def wrapped(source, reads="threads", **options):
    if reads == "sequence":

        def generator():
            for index in range(source.length):
                yield source[index]

        given, options = generator, {"steps_per_epoch": source.length, **options}
    else:
        given = source
    return EchoingPyDataset(given, **{"shuffle": False, **options})


def firsts(dataset, num):
    return [int(keras.ops.convert_to_numpy(dataset[5][0]).max()) for _ in range(num)]


@pytest.mark.parametrize("reads", READS)
def test_fit_ends_with_an_error_that_names_the_batch_that_took_too_long(reads, recorder):
    source, model = Unreliable({3: "stuck"}), recorder()
    with wrapped(source, reads, read_timeout=0.5) as dataset:
        began = time.monotonic()
        with pytest.raises(Exception, match="Reading batch 3 of the source") as caught:
            model.fit(dataset, verbose=0)
        assert time.monotonic() - began < 60
        assert BACKEND == "tensorflow" or type(caught.value) is TimeoutError
        assert (
            "Reading batch 3 of the source must end within read_timeout=0.5 seconds. "
            "Received: no batch after 0." in str(caught.value)
        )
        assert "Look whether the storage can be reached" in str(caught.value)
        model = recorder()
        model.fit(dataset, steps_per_epoch=5, verbose=0)
        assert model.trained_on()[:5] == [3, 4, 5, 6, 7]  # and the late one came nowhere
        source.gate.set()
        model.fit(dataset, verbose=0)
        assert 1000 not in model.trained_on()


@pytest.mark.parametrize("reads", READS)
@pytest.mark.parametrize("echo", ["batch", "example"])
def test_what_is_stuck_is_read_again_by_another_thread(reads, echo, recorder):
    source, model = Unreliable({0: "stuck", 3: "stuck", 4: 1}), recorder()
    retry = Retry(times=1, wait_seconds=0.01)
    options = {"echo": echo, "read_timeout": 0.5, "on_error": retry, "steps_per_epoch": 8}
    with wrapped(source, reads, **options) as dataset:
        model.fit(dataset, verbose=0)
        assert dataset.stats().retried_reads == 3
        assert dataset.stats().skipped == ()
    assert model.trained_on() == [0, 1, 2, 3, 4, 5, 6, 7]
    source.gate.set()


@pytest.mark.parametrize("reads", READS)
def test_closing_does_not_wait_for_a_stuck_read_beyond_its_time(reads):
    source = Unreliable({1: "stuck"})
    dataset = wrapped(source, reads, read_timeout=0.5)
    assert firsts(dataset, 1) == [0]
    deadline = time.monotonic() + 60
    while source.trouble[1]:
        assert time.monotonic() < deadline
    dataset.close()
    assert not source.gate.is_set()
    assert firsts(dataset, 3) == [1, 2, 3]
    source.gate.set()
    dataset.close()


def test_a_sequence_may_pass_more_on_its_way_than_one_read_has_time_for():
    class Slow(Unreliable):
        def __getitem__(self, index):
            time.sleep(0.02)
            return super().__getitem__(index)

    source = Slow({}, length=100)
    with wrapped(source, "sequence", read_timeout=1.0) as dataset:
        firsts(dataset, 80)
        state = dataset.state_dict()
    with wrapped(source, "sequence", read_timeout=1.0) as dataset:
        dataset.load_state_dict(state)
        assert firsts(dataset, 2) == [80, 81]  # after 1.6 seconds


@pytest.mark.parametrize("reads", READS)
@pytest.mark.parametrize("workers", [1, 3])
def test_an_outage_that_ends_costs_nothing_but_time(reads, workers, recorder):
    source, model = Unreliable({2: 3, 5: 1, 6: 2}), recorder()
    options = {"workers": workers} if reads == "threads" else {}
    with wrapped(source, reads, on_error=Retry(wait_seconds=0.001), **options) as dataset:
        model.fit(dataset, verbose=0)
        model.fit(dataset, verbose=0)
        assert dataset.stats().retried_reads == 6
        assert dataset.stats().skipped_reads == 0
    assert model.trained_on() == [*range(8), *range(8)]


@pytest.mark.parametrize("reads", READS)
def test_what_fails_each_time_raises_in_the_end_and_is_tried_again_later(reads):
    source = Unreliable({2: 3})
    with wrapped(source, reads, on_error=Retry(times=1, wait_seconds=0.001)) as dataset:
        assert firsts(dataset, 2) == [0, 1]
        with pytest.raises(OSError, match="batch 2 is gone") as caught:
            dataset[5]
        assert caught.value.__notes__ == ["keras_echo was reading batch 2 of the source."]
        assert firsts(dataset, 2) == [2, 3]


@pytest.mark.filterwarnings(SKIPPED)
@pytest.mark.parametrize("reads", READS)
@pytest.mark.parametrize("echo", ["batch", "example"])
@pytest.mark.parametrize("then", ["skip", Skip(most=2)], ids=["skip", "Skip"])
def test_what_fails_each_time_may_be_skipped_in_the_end(reads, echo, then):
    source = Unreliable({2: 2, 5: 1})
    options = {"on_error": Retry(times=1, wait_seconds=0.001, then=then), "echo": echo}
    with wrapped(source, reads, max_queue_size=1, **options) as dataset:
        assert firsts(dataset, 7) == [0, 1, 3, 4, 5, 6, 7]
        assert dataset.stats().skipped == (SkippedRead(2, "OSError: batch 2 is gone"),)
        assert dataset.stats().retried_reads == 2
        assert firsts(dataset, 3) == [0, 1, 2]


@pytest.mark.filterwarnings(SKIPPED)
@pytest.mark.parametrize("echo", ["batch", "example"])
def test_a_limit_holds_over_passes_restarts_and_states(echo):
    source = Unreliable({2: 10**6})
    options = {"on_error": Skip(most=3), "echo": echo, "shuffle_buffer": 1}
    options = {**options, "steps_per_epoch": 8}
    message = (
        "keras_echo has skipped 3 of 24 reads, and may skip no more: "
        "Skip(most=3, most_fraction=None)."
    )
    with wrapped(source, **options) as dataset:
        firsts(dataset, 10)
        dataset.close()  # what was read ahead is skipped again, and counts once
        firsts(dataset, 1)
        state = json.loads(json.dumps(dataset.state_dict()))
        assert state["skipped"] == {"num": 2, "last": [[2, "OSError: batch 2 is gone"]] * 2}
    with wrapped(source, **options) as dataset:
        dataset.load_state_dict(state)
        assert dataset.stats().skipped == (SkippedRead(2, "OSError: batch 2 is gone"),) * 2
        assert dataset.stats().skipped_reads == 2
        assert dataset.state_dict() == state
        served = []
        with pytest.raises(OSError, match="batch 2 is gone") as caught:
            served.extend(number for _ in range(99) for number in firsts(dataset, 1))
        assert served == [5, 6, 7, 0, 1, 3, 4, 5, 6, 7, 0, 1][-len(served) :]
        assert dataset.stats().skipped_reads == 3
        assert message.replace("24", "26") == caught.value.__notes__[-1]


@pytest.mark.filterwarnings(SKIPPED)
@pytest.mark.parametrize("reads", READS)
@pytest.mark.parametrize("echo", ["batch", "example"])
@pytest.mark.parametrize("num_before", range(1, 10))
def test_what_was_skipped_is_listed_once_whenever_it_is_saved(reads, echo, num_before):
    trouble = {1: 10**6, 4: 10**6, 5: 10**6}
    options = {"on_error": "skip", "echo": echo, "echo_factor": 2, "shuffle_buffer": 0}
    if reads == "sequence":
        trouble = {7: 10**6}  # where a generator ends, its pass does

    def source():
        return Unreliable(trouble)

    with wrapped(source(), reads, **options) as dataset:
        firsts(dataset, num_before)
        state = json.loads(json.dumps(dataset.state_dict()))
        firsts(dataset, 20)
        whole = dataset.stats()
    with wrapped(source(), reads, **options) as dataset:
        dataset.load_state_dict(state)
        firsts(dataset, 20)
        assert dataset.stats().skipped == whole.skipped
        assert dataset.stats().skipped_reads == whole.skipped_reads


class InProcess(keras.utils.PyDataset):
    """In its process, batch 1 is stuck at first, 2 kills it at first, 4 fails, 6 isn't right."""

    def __init__(self, directory):
        super().__init__(workers=2, use_multiprocessing=True)
        self.directory = directory

    def __len__(self):
        return 8

    def is_first(self, index):
        path = self.directory / str(index)
        if path.exists():
            return False
        path.touch()
        return True

    def __getitem__(self, index):
        if index == 1 and self.is_first(1):
            time.sleep(1000)
        if index == 2 and self.is_first(2):
            os._exit(9)
        if index == 4:
            raise OSError("batch 4 is gone")
        x, y = batch_of(index)
        return (x, y) if index != 6 else (x[:, 0], y)


@pytest.mark.filterwarnings(SKIPPED)
def test_processes_that_hang_die_and_fail_are_survived(tmp_path, recorder):
    model = recorder()
    retry = Retry(times=2, wait_seconds=0.001, then=Skip(most=4))
    with wrapped(
        InProcess(tmp_path), on_error=retry, read_timeout=5.0, steps_per_epoch=8
    ) as dataset:
        model.fit(dataset, verbose=0)
        assert model.trained_on() == [0, 1, 2, 3, 5, 7, 0, 1]
        skipped = dataset.stats().skipped
    assert skipped[0] == SkippedRead(4, "OSError: batch 4 is gone")
    assert skipped[1].index == 6
    assert skipped[1].error.startswith(
        "ValueError: Batch 6 of the source must have float32 of rank 2 at [0], as the first batch "
        "has. Received: float32 of rank 1."
    )
    assert len(skipped) == 2


@pytest.mark.parametrize("echo", ["batch", "example"])
def test_a_batch_of_another_form_ends_training_with_its_index(echo, recorder):
    class Odd(Unreliable):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return (x, y.astype("int32")) if index == 3 else (x, y)

    message = r"Batch 3 of the source must have float32 of rank 2 at \[1\], as the first batch has"
    with wrapped(Odd({}), echo=echo) as dataset:
        for _ in range(2):
            with pytest.raises(Exception, match=message):
                recorder().fit(dataset, verbose=0)


@pytest.mark.filterwarnings(SKIPPED)
def test_what_was_skipped_in_an_epoch_is_a_text_in_tensorboard(tmp_path, recorder):
    source = Unreliable({2: 10**6, 5: 1})
    with wrapped(source, on_error="skip", steps_per_epoch=8, max_queue_size=1) as dataset:
        callback = DataEchoCallback(dataset, log_dir=tmp_path, adapt=False, verbose=0)
        recorder().fit(dataset, epochs=2, verbose=0, callbacks=[callback])
        num_skipped = dataset.stats().skipped_reads
    texts = []
    for path in sorted(tmp_path.glob("events.out.tfevents.*")):
        found = event_accumulator.EventAccumulator(str(path)).Reload()
        if "keras_echo/skipped" in found.Tags()["tensors"]:
            texts += [
                event.tensor_proto.string_val[0].decode()
                for event in found.Tensors("keras_echo/skipped")
            ]
    lines = [line for text in texts for line in text.splitlines()]
    listed = [line.strip() for line in lines if line.startswith("    ")]
    assert listed[:2] == [
        "batch 2: OSError: batch 2 is gone",
        "batch 5: OSError: batch 5 is gone",
    ]
    assert len(listed) >= num_skipped - 1  # TensorFlow is a few batches ahead of the last epoch
    assert all(text.startswith("Reads that were skipped: ") for text in texts)


def test_the_arguments_are_checked():
    for value, kind, must in (
        (0, ValueError, "be above 0 and finite. Received: 0."),
        (float("inf"), ValueError, "be above 0 and finite. Received: inf."),
        ("5", TypeError, "be a real number. Received: '5'."),
        (True, TypeError, "be a real number. Received: True."),
    ):
        with pytest.raises(kind) as caught:
            wrapped(Unreliable({}), read_timeout=value)
        assert str(caught.value) == (
            f"read_timeout must {must} Pass a number of seconds, such as 30.0."
        )


def test_a_script_ends_though_a_reader_was_dropped(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import time
            import numpy as np, keras, keras_echo

            class Source(keras.utils.PyDataset):
                def __len__(self):
                    return 3
                def __getitem__(self, index):
                    if index == 1:
                        time.sleep(1000)
                    return np.zeros((2, 1)), np.zeros((2, 1))

            dataset = keras_echo.EchoingPyDataset(Source(), shuffle=False, read_timeout=0.2)
            dataset[0]
            try:
                dataset[0]
            except TimeoutError:
                print("through")
            """
        )
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "through\n"
    assert "Traceback" not in done.stderr


class Widening(Unreliable):
    """From batch 4 on, two columns more."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return np.repeat(x[:, :, None], 5 if index < 4 else 7, axis=1), y


def test_where_sizes_vary_too_late_for_keras_on_tensorflow_it_says_so():
    model = keras.Sequential(
        [keras.Input((None, 1)), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    with wrapped(Widening({}), steps_per_epoch=12) as dataset:
        if BACKEND == "tensorflow":
            with pytest.raises(Exception, match="Batch 4 of the source") as caught:
                model.fit(dataset, verbose=0)
            assert (
                "Batch 4 of the source must have the sizes (5, 1) in array 0, as the two batches "
                "had from which Keras on TensorFlow learned them. Received: (7, 1). Call fit() "
                "again, which now knows that this dimension varies, pad all batches to one size, "
                "or train on dataset.as_tf_dataset(element_spec)."
            ) in str(caught.value)
        model.fit(dataset, verbose=0)
        assert dataset.stats().steps >= 12
        assert [dataset[5][0].shape[1] for _ in range(8)].count(7) == 4  # in a loop, all are served


def test_ctrl_c_ends_a_wait_for_a_batch(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, threading, time
            import numpy as np, keras, keras_echo

            signal.signal(signal.SIGINT, signal.default_int_handler)

            class Source(keras.utils.PyDataset):
                def __len__(self):
                    return 8
                def __getitem__(self, index):
                    if index == 3:
                        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
                        time.sleep(1000)
                    return np.zeros((2, 1)), np.zeros((2, 1))

            model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
            model.compile("sgd", "mse")
            dataset = keras_echo.EchoingPyDataset(Source(), shuffle=False)
            try:
                model.fit(dataset, verbose=0)
            except KeyboardInterrupt:
                print("KeyboardInterrupt")
            except Exception as error:
                print(type(error).__name__, "KeyboardInterrupt" in str(error))
            """
        )
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=90, check=True
    )
    assert done.stdout in (
        ["KeyboardInterrupt\n", "RuntimeError True\n"]
        if BACKEND == "tensorflow"
        else ["KeyboardInterrupt\n"]
    )
