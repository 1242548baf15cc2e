"""Packages that only a part of keras_echo needs, and the backend, which is the user's choice."""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from keras_echo._messages import expected

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKENDS = ("tensorflow", "jax", "torch")

_EXTRAS = {"matplotlib": "demo", "mlxtend": "demo", "safetensors": "demo"}
"""The smallest extra that has a package; `examples` has all of them."""


def optional(module: str, purpose: str) -> Any:
    """Imports a module that may not be installed.

    Args:
        module: Its full name.
        purpose: What it does here, continuing the sentence "it".

    Raises:
        ImportError: If it isn't there.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = _EXTRAS.get(package, "examples")
        remedy = f'Run pip install "keras-echo[{extra}]"'
        must = f"be installed, it {purpose}"
        raise ImportError(expected(package, must, str(error), remedy)) from error


@contextmanager
def needing_backend() -> Iterator[None]:
    """To import Keras in: where its backend isn't installed, the error says what to do.

    Raises:
        ImportError: If the backend isn't there.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in BACKENDS:
            raise
        raise ImportError(
            expected(
                "The backend that Keras uses",
                "be installed",
                str(error),
                _how_to_choose([name for name in BACKENDS if find_spec(name) is not None]),
            )
        ) from error


def _how_to_choose(installed: list[str]) -> str:
    if installed:
        shown = " or ".join(f"KERAS_BACKEND={name}" for name in installed)
        return f"Set the environment variable {shown}, which is installed, before you start Python"
    return (
        'Run pip install "keras-echo[jax]" and set the environment variable KERAS_BACKEND=jax '
        "before you start Python, or the same with tensorflow or torch"
    )
