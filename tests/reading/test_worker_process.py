"""What a worker process says when something is wrong."""

import contextlib
import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from keras_echo.reading import worker_process
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


def dying(argument):
    os._exit(7)


def test_a_process_that_dies_is_noticed_though_a_fork_holds_its_end_of_the_pipe(monkeypatch):
    held = []
    make = multiprocessing.get_context("spawn").Pipe

    def pipe():
        ours, theirs = make()
        held.append(os.dup(theirs.fileno()))
        return ours, theirs

    monkeypatch.setattr(worker_process._CONTEXT, "Pipe", pipe)
    process = WorkerProcess(dying, version=0)
    with pytest.raises(RuntimeError, match=r"must stay alive while it reads\. .*exit code 7"):
        process("")  # would never return
    assert process.has_died
    process.close()
    os.close(*held)


@pytest.mark.parametrize("moment", ["between calls", "in a call"])
def test_processes_end_silently_when_their_parent_is_killed(tmp_path, moment):
    """Even if a fork of the parent holds its end of the pipe."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, sys, threading, time
            from keras_echo.reading.worker_process import WorkerProcess

            def slow(argument):
                time.sleep(argument)
                return os.getpid()

            if __name__ == "__main__":
                process = WorkerProcess(slow, version=0)
                print(process(0)[0], flush=True)
                if os.fork() == 0:
                    time.sleep(600)
                if sys.argv[1] == "in a call":
                    threading.Thread(target=process, args=(1.0,)).start()
                    time.sleep(0.2)
                os.kill(os.getpid(), signal.SIGKILL)
            """
        )
    )
    with (tmp_path / "errors").open("w") as errors:
        parent = subprocess.Popen(
            [sys.executable, script, moment],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            pid = int(parent.stdout.readline())
            assert parent.wait(60) == -signal.SIGKILL
            deadline = time.monotonic() + 60
            while is_running(pid):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            os.killpg(parent.pid, signal.SIGKILL)
            parent.stdout.close()
    assert (tmp_path / "errors").read_text() == ""


def is_running(pid):
    """Whether a process runs; one that has ended, and that nobody has waited for, doesn't."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
