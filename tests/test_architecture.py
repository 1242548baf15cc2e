"""The public names, and that the package imports nothing heavy before it must."""

import subprocess
import sys

import pytest

import keras_echo


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
