"""Whatever ends a window, the profiler is free again and nothing of it stays in log_dir."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keras_echo.profiling.recording.tracer import Tracer

LEAVE = Path(__file__).with_name("leave_window_open.py")
ENVIRONMENT = os.environ | {
    "PYTHONPATH": f"{Path(__file__).parents[2]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
}


@pytest.mark.parametrize(
    ("how", "code", "last"),
    [
        ("error", 1, "RuntimeError: training's own error"),
        ("interrupt", -signal.SIGINT, "KeyboardInterrupt"),
        ("exit", 3, None),
    ],
)
def test_a_window_that_is_open_at_the_end_changes_nothing_of_it(tmp_path, how, code, last):
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", str(LEAVE), str(tmp_path), how],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == code, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith("USDT:")]
    if last is not None:
        assert lines[-1] == last
    assert ("Traceback" in done.stderr) == (last is not None)
    assert "Warning" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def interrupting(function):
    """As `function`, with Ctrl-C before and after what it does."""

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        result = function(*args)
        signal.raise_signal(signal.SIGINT)
        return result

    return interrupted


def opened(tracer, logdir):
    """Opens a window, and puts a step into it."""
    tracer.start(logdir)
    with tracer.step(1):
        pass


def written(logdir):
    tracer = Tracer()
    opened(tracer, logdir)
    tracer.stop()
    return tracer.write()


@pytest.mark.parametrize("step", ["start", "stop", "abandon"])
def test_ctrl_c_comes_after_what_it_would_cut_in_two(tmp_path, step):
    tracer = Tracer()
    tracer.start(tmp_path)
    tracer.discard()  # the session is made with the first window
    session = tracer._session
    setattr(session, step, interrupting(getattr(session, step)))
    if step != "start":
        opened(tracer, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        {"start": lambda: tracer.start(tmp_path), "stop": tracer.stop, "abandon": tracer.discard}[
            step
        ]()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert tracer.active == (step == "start")
    delattr(session, step)
    tracer.discard()
    assert list(tmp_path.iterdir()) == []
    assert written(tmp_path).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["plugins"]


def test_windows_of_another_thread_leave_the_handler_alone(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(written, tmp_path).result().is_file()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
