"""What a missing package's error says: the smallest extra, and how to choose a backend."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from keras_echo import _optional

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("module", "extra"), [("matplotlib.missing", "demo"), ("skimage.missing", "examples")]
)
def test_a_missing_package_names_the_smallest_extra(module, extra):
    with pytest.raises(ImportError, match=rf'Run pip install "keras-echo\[{extra}\]"\.$'):
        _optional.optional(module, "draws")


def test_the_smallest_extras_are_those_of_the_project():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = extras["optional-dependencies"]
    for package, extra in _optional._EXTRAS.items():
        assert any(line.startswith(package) for line in listed[extra])


HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
import importlib.util
original = importlib.util.find_spec
importlib.util.find_spec = lambda name, *_: None if name in {hidden} else original(name, *_)
"""


def run_without(hidden, code, backend=""):
    done = subprocess.run(
        [sys.executable, "-c", HIDE.format(hidden=hidden) + code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr.splitlines()[-1]


ALL = "('tensorflow', 'jax', 'torch')"
COMMAND = "from keras_echo.cli import main; sys.exit(main(['demo']))"


@pytest.mark.parametrize("code", ["import keras_echo; keras_echo.EchoingPyDataset", COMMAND])
def test_without_a_backend_one_sentence_says_what_to_install(code):
    rc, said = run_without(ALL, code, "jax")
    assert rc == (2 if code is COMMAND else 1)
    assert "The backend that Keras uses must be installed." in said
    assert 'Run pip install "keras-echo[jax]" and set the environment variable' in said


def test_where_another_backend_is_installed_it_is_named():
    rc, said = run_without("('jax', 'torch')", "from keras_echo import DataEchoCallback", "jax")
    assert rc == 1
    assert "Set the environment variable KERAS_BACKEND=tensorflow, which is installed" in said
