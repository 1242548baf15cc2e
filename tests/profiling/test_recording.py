"""Real windows of the backend that KERAS_BACKEND names, each recorded in a process of its own."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest

from keras_echo.profiling.analyze import analyze
from keras_echo.profiling.measuring.breakdown import breakdown
from keras_echo.profiling.measuring.extract import extract
from keras_echo.profiling.traces import xspace

BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
RECORD = Path(__file__).with_name("record_window.py")
ENVIRONMENT = os.environ | {
    "KERAS_BACKEND": BACKEND,
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": f"{Path(__file__).parents[2]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    util.find_spec(BACKEND) is None, reason=f"KERAS_BACKEND {BACKEND} is not installed"
)


def run(*args):
    done = subprocess.run(
        [sys.executable, *args], env=ENVIRONMENT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


# ratio, workers, echo, and whether the dataset reports the reads or its threads mark them.
WINDOWS = [(0.5, 1, 1, False), (4, 1, 1, False), (2, 4, 1, False), (4, 4, 2, True)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Returns a function that records a window, once for all tests."""

    @functools.cache
    def record(ratio, workers, echo, measured):
        logdir = tmp_path_factory.mktemp("logs")
        options = {"ratio": ratio, "workers": workers, "echo": echo, "measured": measured,
                   "pause": 0.03, "width": 16, "steps": 10}  # fmt: skip
        return logdir, run(str(RECORD), str(logdir), json.dumps(options))

    return record


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_tells_all_that_a_breakdown_needs(recorded, window):
    logdir, truth = recorded(*window)
    (result,) = analyze(logdir)
    assert result.path == truth["path"]
    assert (result.backend, result.steps, result.num_readers) == (BACKEND, 10, window[1])
    assert result.complete
    # Tests don't time: a factor of two off is a mistake, a few per cent is the machine.
    assert truth["ratio"] / 2 < result.ratio < truth["ratio"] * 2
    assert not list(logdir.glob(".window-*"))


XPROF = """
import json, sys
from xprof.convert import raw_to_tool_data as raw
found, _ = raw.xspace_to_tool_data(
    [sys.argv[1]], "input_pipeline_analyzer", {"use_saved_result": False}
)
known = next(t["p"] for t in json.loads(found) if "steptime_ms_average" in t.get("p", {}))
print(json.dumps([float(known[k]) for k in ("steptime_ms_average", "infeed_time_ms_avg")]))
"""


@pytest.mark.skipif(util.find_spec("xprof") is None, reason="xprof is not installed")
@pytest.mark.parametrize("window", WINDOWS)
def test_xprof_reports_the_same_step_time_and_input_share(recorded, window):
    _, truth = recorded(*window)
    ratio, workers, echo, _ = window
    step, wait = run("-c", XPROF, truth["path"])
    spans = extract(xspace.read(truth["path"]))
    # XProf leaves out a window's first and last step. That matters where several readers deliver
    # in bursts; there the same steps are compared.
    inner = dataclasses.replace(spans, steps=spans.steps[1:-1])
    for known in (inner, spans) if workers == 1 else (inner,):
        ours = breakdown(known)
        # The same trace is read twice: the machine's load cancels out.
        assert step == pytest.approx(ours.step_seconds * 1e3, rel=0.05)
        assert wait / step == pytest.approx(ours.wait_fraction, abs=0.05)
    assert (wait / step > 0.2) == (ratio / echo > 1)


def test_a_running_session_is_a_clean_error(tmp_path):
    code = (
        "import json, os, sys\n"
        "from keras_echo.profiling.recording.sessions import ProfilerBusyError\n"
        "from keras_echo.profiling.recording.tracer import Tracer\n"
        "first, second = Tracer(), Tracer()\n"
        "first.start(sys.argv[1])\n"
        "with first.annotate('outer', number=3): pass\n"
        "try:\n"
        "    second.start(sys.argv[1])\n"
        "    text = 'no error'\n"
        "except ProfilerBusyError as error:\n"
        "    text = str(error)\n"
        "first.stop()\n"
        "path = first.write()\n"
        "second.start(sys.argv[1])\n"
        "second.discard()\n"
        "print(json.dumps([text, path.is_file()]))\n"
        "sys.stdout.flush()\n"
        "os._exit(0)"
    )
    text, written = run("-c", code, str(tmp_path))
    assert f"The {BACKEND} profiler must be free" in text
    assert written
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plugins"]
