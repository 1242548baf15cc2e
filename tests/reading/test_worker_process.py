"""What a worker process says when something is wrong."""

import contextlib
import operator
import os

import pytest

from keras_echo.reading.worker_process import InProcess, WorkerProcess


@contextlib.contextmanager
def called(function):
    with contextlib.closing(InProcess(function)) as worker:

        def call(argument):
            worker.prepare(version=0)
            return worker(argument)

        yield call


class Unloadable:
    """Pickles, and fails where it is unpickled, like a class of a notebook's `__main__`."""

    def __call__(self, argument):
        return argument

    def __reduce__(self):
        return operator.getitem, ({}, "Data")


class OddError(Exception):
    """Pickles, and doesn't unpickle."""

    def __init__(self, what, why):
        super().__init__(f"{what}: {why}")


def failing(argument):
    error = OddError("no", argument)
    error.add_note("batch 7")
    raise error


def interrupted(argument):
    if argument:
        raise KeyboardInterrupt(argument)
    return "alive"


def test_a_class_that_a_new_process_does_not_find_is_named():
    with (
        called(Unloadable()) as call,
        pytest.raises(ValueError, match="Received: \"'Data'\"") as error,
    ):
        call(1)
    assert str(error.value).startswith(
        "A source with use_multiprocessing=True must be of a class that a new process can import."
    )
    assert str(error.value).endswith(
        "Move the class into a module, or pass use_multiprocessing=False to read with threads."
    )


def test_an_error_that_does_not_survive_the_pipe_is_told():
    with (
        called(failing) as call,
        pytest.raises(RuntimeError, match="OddError: no: 3") as error,
    ):
        call(3)
    assert "batch 7" in error.value.__notes__


def test_an_interruption_inside_the_function_leaves_the_process_alive():
    with called(interrupted) as call:
        with pytest.raises(KeyboardInterrupt):
            call("now")
        assert call("")[0] == "alive"


def test_closing_does_not_wait_for_a_fork_that_holds_the_pipe():
    process = WorkerProcess(interrupted, version=0)
    assert process("")[0] == "alive"
    held = os.dup(process._pipe.fileno())
    process.close()  # would never return
    os.close(held)
