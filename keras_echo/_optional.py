"""Packages that only a part of keras_echo needs."""

from __future__ import annotations

import importlib
from typing import Any

from keras_echo._messages import expected


def optional(module: str, purpose: str) -> Any:
    """Imports a module that may not be installed.

    Args:
        module: Its full name.
        purpose: What it does here, continuing the sentence "it".

    Raises:
        ImportError: If it isn't there.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            expected(
                module.partition(".")[0],
                f"be installed, it {purpose}",
                str(error),
                'Run pip install "keras-echo[examples]"',
            )
        ) from error
