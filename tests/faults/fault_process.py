"""A scenario of `scenarios.py` in a process of its own, to which anything may be done."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras

SCENARIOS = Path(__file__).with_name("scenarios.py")
ROOT = SCENARIOS.parents[2]


class FaultProcess:
    """Runs a scenario, in a session of its own, with the backend of the tests.

    A context manager: inside, the scenario runs; at the end, whatever is left of its session is
    killed.

    Args:
        scenario: Name of a function in `scenarios.py`.
        directory: What it gets as its directory; its output is collected there, too.
        **options: What it gets besides, JSON-serialisable.
    """

    def __init__(self, scenario, directory, **options):
        self._command = [sys.executable, SCENARIOS, scenario, directory, json.dumps(options)]
        self._errors = Path(directory, f"{scenario}.stderr")
        self._lines = []
        self._has_more = threading.Condition()

    def __enter__(self):
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                self._command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                env={
                    **os.environ,
                    "KERAS_BACKEND": keras.backend.backend(),
                    "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
                    "PYTHONFAULTHANDLER": "1",
                },
            )
        self._collector = threading.Thread(target=self._collect)
        self._collector.start()
        return self

    def __exit__(self, *_):
        if self.left():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._collector.join()
        self._process.stdout.close()

    def interrupt(self):
        """Ctrl-C, as a terminal sends it to all processes of a group."""
        os.killpg(self._process.pid, signal.SIGINT)

    def says(self, word, within_seconds=60):
        """Waits until a line begins with `word`, and takes it; returns the rest, read as JSON."""
        deadline = time.monotonic() + within_seconds
        with self._has_more:
            while True:
                for place, line in enumerate(self._lines):
                    if line.startswith(f"{word} "):
                        del self._lines[place]
                        return json.loads(line.removeprefix(word))
                left = deadline - time.monotonic()
                if left <= 0:
                    self._process.send_signal(signal.SIGUSR1)  # what its threads are at
                    time.sleep(1)
                    raise AssertionError(self._told(f"said no {word!r} in {within_seconds} s"))
                assert self._collector.is_alive(), self._told(f"ended and said no {word!r}")
                self._has_more.wait(min(left, 0.1))

    def ends(self, within_seconds=60):
        """Waits for its end; returns its exit status. No process may be left after it."""
        try:
            status = self._process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGUSR1)  # has it write what its threads are at
            time.sleep(1)
            raise AssertionError(self._told(f"didn't end in {within_seconds} s")) from None
        deadline = time.monotonic() + 5
        while left := self.left():
            assert time.monotonic() < deadline, self._told(f"left {left} running")
            time.sleep(0.02)
        return status

    def left(self):
        """The processes of its session that are alive, by their command lines."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                # After the name, which may hold anything: state, parent, group, session.
                state, _, _, session = (
                    (directory / "stat").read_text().rpartition(")")[2].split()[:4]
                )
                if int(session) == self._process.pid and state != "Z":
                    found.append((directory / "cmdline").read_text().replace("\0", " "))
        return found

    def errors(self):
        """What it wrote on standard error so far."""
        return self._errors.read_text()

    def _collect(self):
        for line in self._process.stdout:
            with self._has_more:
                self._lines.append(line)
                self._has_more.notify_all()

    def _told(self, problem):
        return f"The process {problem}.\n{''.join(self._lines)}\n{self.errors()[-6000:]}"
