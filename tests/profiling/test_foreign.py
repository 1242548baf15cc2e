"""What `analyze` makes of traces that others recorded, on the backend that KERAS_BACKEND names."""

import importlib
import json
import os
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest

from keras_echo.profiling.analyze import analyze
from keras_echo.profiling.measuring.result import MISSING_READS, missing_steps, missing_waits
from keras_echo.profiling.report import render

BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
ROOT = Path(__file__).parents[2]

# What each kind of trace can say of R, and what it must then say is missing.
EXACT, LOWER, UPPER = ("exact", ()), ("lower", (MISSING_READS,)), ("upper", (MISSING_READS,))
NO_WAITS = ("upper", (missing_waits(BACKEND), MISSING_READS))
KINDS = {
    "tensorflow": {
        "callback_pydataset": EXACT,
        "callback_pydataset_workers": LOWER,
        "callback_tfdata": EXACT,
        "callback_tfdata_without_prefetch": EXACT,
        "callback_steps_per_execution": EXACT,
        "callback_tfdata_steps_per_execution": EXACT,
        "session_around_fit": EXACT,
        "session_around_fit_tfdata": EXACT,
        "session_around_fit_and_validation": EXACT,
        "session_around_loop": EXACT,
        "session_around_marked_loop": EXACT,
        "session_around_bare_loop": None,
    },
    "jax": {
        "callback_pydataset": EXACT,
        "callback_steps_per_execution": EXACT,
        "trace_around_fit": EXACT,
        "trace_around_fit_without_python": NO_WAITS,
        "trace_around_fit_with_workers": ("lower", ()),  # of several readers
        "trace_around_fit_and_validation": EXACT,
        "trace_around_fit_of_arrays": UPPER,
        "trace_around_loop": NO_WAITS,
        "trace_around_marked_loop": NO_WAITS,
    },
    "torch": {
        "handler_around_fit": LOWER,
        "handler_around_fit_with_steps": LOWER,
        "handler_around_fit_of_loader": EXACT,
        "handler_around_fit_of_loader_with_steps": EXACT,
        "handler_around_fit_of_loader_with_workers": EXACT,
        "handler_around_fit_with_workers": LOWER,
        "handler_around_fit_and_validation": LOWER,
        "handler_around_bare_loop": None,
        "handler_with_schedule": LOWER,
    },
}[BACKEND]
if BACKEND == "jax" and util.find_spec("tensorflow") is None:
    # Keras's TensorBoard callback needs it.
    KINDS = {kind: says for kind, says in KINDS.items() if not kind.startswith("callback_")}

pytestmark = pytest.mark.skipif(
    util.find_spec(BACKEND) is None, reason=f"KERAS_BACKEND {BACKEND} is not installed"
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Records every kind, in one process since the imports take longest."""
    logdir = tmp_path_factory.mktemp("logs")
    environment = os.environ | {
        "KERAS_BACKEND": BACKEND,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("record_foreign.py")), str(logdir), *KINDS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    truths = json.loads(done.stdout)
    assert set(truths) == set(KINDS)
    return logdir, truths


def is_accelerated():
    match BACKEND:
        case "jax":
            return importlib.import_module("jax").default_backend() != "cpu"
        case "torch":
            return importlib.import_module("torch").cuda.is_available()
    return bool(importlib.import_module("tensorflow").config.list_physical_devices("GPU"))


@pytest.mark.parametrize("kind", [kind for kind, says in KINDS.items() if says])
def test_traces_of_others_give_steps_and_a_range_for_r(recorded, kind):
    logdir, truths = recorded
    (result,) = analyze(logdir / kind)
    truth = truths[kind]
    assert result.backend == BACKEND
    assert (result.hardware == "CPU") == (not is_accelerated())
    if "callback" in kind:
        assert result.steps == truth["steps"]
    else:
        # The window's first and last steps are cut off.
        assert truth["steps"] - 2 <= result.steps <= truth["steps"]
    # Tests don't time: a factor of two off is a mistake, a few per cent is the machine.
    assert truth["step"] / 2 < result.step_seconds < truth["step"] * 2
    bound, missing = KINDS[kind]
    low, high = result.ratio_range
    if missing_waits(BACKEND) in missing:
        assert set(missing) <= set(result.missing)
        assert "python_tracer_level" in render(result)
        assert result.recommended_factor == 1.0
    else:
        assert (result.bound, result.missing) == (bound, missing)
        # Reading takes no longer than a whole step, and a step no less than its known part.
        assert low < 1.5 * truth["step"] / truth["pause"]
        assert high > truth["read"] / truth["pause"] / 3
        assert 0 < result.wait_seconds < result.step_seconds


@pytest.mark.parametrize("kind", [kind for kind, says in KINDS.items() if not says])
def test_traces_without_any_sign_of_steps_say_how_to_record_them(recorded, kind):
    (result,) = analyze(recorded[0] / kind)
    assert result.steps == 0
    assert result.missing == (missing_steps(BACKEND),)
    text = render(result)
    ways = {"tensorflow": "tf.profiler.", "jax": "jax.profiler.", "torch": "torch.profiler."}
    assert [backend for backend, way in ways.items() if way in text] == [BACKEND]
    assert len(text.splitlines()) == 5
