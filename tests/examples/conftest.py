"""What the tests of all examples do: load a script (`SCRIPT` of the module), and run a copy."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_echo


@pytest.fixture(scope="module")
def script(request):
    path = request.module.SCRIPT
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[path.stem]


@pytest.fixture(params=["keras_hub", "keras_cv"])
def library(request):
    """Whose variant is run as a whole: KerasCV's on one backend only, to save time."""
    pytest.importorskip(request.param)
    if request.param == "keras_cv" and keras.backend.backend() != "tensorflow":
        pytest.skip("KerasCV's variant runs on TensorFlow; its models are tested on all")
    return request.param


@pytest.fixture
def run_copy(request, tmp_path):
    """Runs a copy in `tmp_path`, with nothing around it; returns what it told."""

    def run(*arguments):
        copy = shutil.copy(request.module.SCRIPT, tmp_path)
        done = subprocess.run(
            [sys.executable, copy, "--quick", "--backend", keras.backend.backend(), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(keras_echo.__file__).parents[1])},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    return run
