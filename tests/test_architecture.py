"""The public names, what importing them imports, and what ARCHITECTURE.md says."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_echo

ROOT = Path(__file__).parent.parent
PACKAGE = Path(keras_echo.__file__).parent


def imported_by(statement):
    script = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import keras_echo", "import keras_echo.cli"])
def test_importing_the_package_imports_no_keras(statement):
    assert not {"keras", "numpy", "tensorflow", "jax", "torch"} & imported_by(statement)


def test_the_pure_modules_import_no_keras_and_no_backend():
    modules = imported_by(
        "import keras_echo.echoing.repetition, keras_echo.echoing.example_buffer, "
        "keras_echo.factor, keras_echo.serving.index_peeks"
    )
    assert not {"keras", "tensorflow", "jax", "torch"} & modules


@pytest.mark.parametrize("name", keras_echo.__all__)
def test_every_public_name_is_there(name):
    assert getattr(keras_echo, name) is not None
    assert name in dir(keras_echo)


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        keras_echo.nothing  # noqa: B018


def the_way_of_a_batch():
    section = (ROOT / "ARCHITECTURE.md").read_text().split("## A batch's way")[1]
    lines = section.split("```")[1].splitlines()[1:]
    return [tuple(line.split()[:2]) for line in lines]


def test_a_batch_goes_the_way_that_is_written():
    """What it passes, by the order in which each had it in hand first: when it returned it."""

    class Source(keras.utils.PyDataset):
        def __len__(self):
            return 9

        def __getitem__(self, index):
            return np.zeros((2, 1), "float32"), np.zeros((2, 1), "float32")

    passed, way = [], the_way_of_a_batch()

    def note(frame, event, value):
        code = frame.f_code
        if event == "return" and value is not None and PACKAGE in Path(code.co_filename).parents:
            step = (str(Path(code.co_filename).relative_to(PACKAGE)), code.co_qualname)
            if step in way and step not in passed:
                passed.append(step)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        with keras_echo.EchoingPyDataset(Source(), echo_factor=2, shuffle_buffer=2) as dataset:
            dataset[2]
    finally:
        threading.setprofile(None)
        sys.setprofile(None)
    assert passed == way


def test_every_file_that_is_written_of_is_there():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for path in set(re.findall(r"\b[\w/]+\.py\b", text)):
        assert any((folder / path).exists() for folder in (ROOT, PACKAGE, PACKAGE / "demo")), path
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms <= set(re.findall(r"^  (\w+)/ ", text, re.MULTILINE))
