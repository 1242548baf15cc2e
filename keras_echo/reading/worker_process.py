"""A worker process: a function at the other end of a pipe."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
from contextlib import contextmanager, suppress
from enum import Enum
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from keras_echo._messages import expected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

# A fork would copy the locks of TensorFlow's and JAX's threads as they are, held ones included.
_CONTEXT = multiprocessing.get_context("spawn")


_EXIT_SECONDS = 5.0  # which a process has to end by itself
_ORPHAN_SECONDS = 2.0  # after which a process looks whether its parent lives


class _Message(Enum):
    """What is sent to a process beside the arguments of calls."""

    ARE_YOU_READY = 0
    END = 1


_Answer = tuple[bool, Any, list[str], float]
"""Whether the call raised; what it returned or raised; the notes of that; the processor's time."""


def pickled(function: object) -> bytes:
    """Pickles what a worker process is to call.

    Raises:
        ValueError: If it can't be pickled.
    """
    try:
        return pickle.dumps(function, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise ValueError(
            expected(
                "A source with use_multiprocessing=True",
                "be picklable",
                error,
                "Keep locks, open files and lambdas out of its attributes, or pass "
                "use_multiprocessing=False to read with threads",
            )
        ) from error


class WorkerProcess:
    """Calls `function` in a process of its own, started afresh.

    Args:
        function: What to call; pickled.
        version: For the caller to tell which state of `function` was pickled.
    """

    def __init__(self, function: Callable[[Any], Any], version: int) -> None:
        self.version = version
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_serve, args=(theirs, pickled(function)), name="keras_echo-reader", daemon=True
        )
        with _without_interrupts():
            self._process.start()
        theirs.close()

    def __call__(self, argument: Any) -> tuple[Any, float]:
        """Calls the function in the process.

        Returns:
            What it returned, and for how many seconds a processor worked on it.

        Raises:
            Exception: What the function raised, with the process's traceback as a note.
            RuntimeError: If the process died.
        """
        is_error, value, notes, compute_seconds = self._answer_to(argument)
        if is_error:
            # Sent beside it: an exception that pickles itself may leave them out.
            for note in notes[len(getattr(value, "__notes__", [])) :]:
                value.add_note(note)
            raise value
        return value, compute_seconds

    def await_ready(self) -> None:
        """Waits until the process has imported what it needs.

        Raises:
            RuntimeError: If it died.
        """
        self._answer_to(_Message.ARE_YOU_READY)

    def _answer_to(self, argument: Any) -> _Answer:
        try:
            self._pipe.send(argument)
            # The pipe alone doesn't tell of the end of a process while a fork of this one holds
            # its other end, too.
            if self._pipe not in wait([self._pipe, self._process.sentinel]):
                raise EOFError
            answer: _Answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            raise RuntimeError(
                expected(
                    "A worker process of the source",
                    "stay alive while it reads",
                    f"exit code {self._process.exitcode}",
                    "Look for its last words on standard error; exit code -9 is most often the "
                    "system running out of memory; a script needs `if __name__ == '__main__':`",
                )
            ) from error
        return answer

    @property
    def has_died(self) -> bool:
        """Whether the process ended by itself; another one must take its place."""
        return self._process.exitcode is not None

    def kill(self) -> None:
        """Ends the process in the midst of a call, which then raises; on any thread."""
        with suppress(ValueError):  # it may be closed already
            self._process.kill()

    def close(self) -> None:
        """Ends the process, which does nothing between calls."""
        with suppress(OSError):  # it may have ended by itself
            # To close the pipe isn't enough where this process was forked: the fork holds it too.
            self._pipe.send(_Message.END)
        self._pipe.close()
        self._process.join(_EXIT_SECONDS)
        if self._process.exitcode is None:  # TensorFlow 2.21 at times hangs when it is to end
            self._process.kill()
            self._process.join()
        self._process.close()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Has a process begin without hearing Ctrl-C, which would end it before it can ignore it."""
    if sys.platform == "win32":  # has no masks
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # otherwise it begins with the process, and keeps the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class InProcess:
    """Calls a function in one process at a time; see `keras_echo.reading.attempt.Worker`.

    Another process takes its place where it has died, or where the version of `function` has
    changed since it was pickled.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self._process: WorkerProcess | None = None

    def prepare(self, version: int) -> None:
        """Has a process ready in which `function` is of this version.

        Raises:
            RuntimeError: If it died.
        """
        process = self._process
        if process is None or process.version != version or process.has_died:
            self.close()
            self._process = WorkerProcess(self._function, version)
            self._process.await_ready()

    def __call__(self, argument: Any) -> tuple[Any, float]:
        """See `WorkerProcess`."""
        assert self._process is not None
        return self._process(argument)

    def kill(self) -> None:
        """See `WorkerProcess`."""
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.close()


def _serve(pipe: Connection, function: bytes) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    call = _loaded(function)
    with suppress(EOFError, OSError):  # the parent was killed
        while (argument := _received(pipe)) is not _Message.END:
            if argument is _Message.ARE_YOU_READY:
                pipe.send((False, None, [], 0.0))
                continue
            began = time.process_time()
            try:
                value = call(argument)
                answer: _Answer = (False, value, [], time.process_time() - began)
            except BaseException as error:
                error.add_note(
                    "In the worker process:\n" + "".join(traceback.format_exception(error))
                )
                answer = (True, _sendable(error), error.__notes__, 0.0)
            _send(pipe, answer)


def _received(pipe: Connection) -> Any:
    """What the parent sends.

    Raises:
        EOFError: If it was killed, even where a fork of it holds its end of the pipe, too.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    while not pipe.poll(_ORPHAN_SECONDS):
        if os.getppid() != parent.pid:
            raise EOFError
    return pipe.recv()


def _loaded(function: bytes) -> Callable[[Any], Any]:
    """The function; where it can't be had here, one that says so when it is called."""
    try:
        call: Callable[[Any], Any] = pickle.loads(function)
    except Exception as error:
        message = expected(
            "A source with use_multiprocessing=True",
            "be of a class that a new process can import",
            str(error),
            "Move the class into a module, or pass use_multiprocessing=False to read with threads",
        )

        def call(argument: Any) -> Any:
            raise ValueError(message)

    return call


def _sendable(error: BaseException) -> BaseException:
    """The error, or what can be said of one that doesn't survive the pipe."""
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:
        pass
    return RuntimeError(f"{type(error).__qualname__}: {error}")


def _send(pipe: Connection, answer: _Answer) -> None:
    try:
        pipe.send(answer)
    except Exception as error:
        problem = RuntimeError(f"The worker process could not send {answer[1]!r}: {error}")
        pipe.send((True, problem, [], 0.0))
