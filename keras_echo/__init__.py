"""Data echoing for Keras 3: reuse what was read instead of letting the accelerator wait."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from keras_echo._optional import needing_backend
from keras_echo._version import __version__

if TYPE_CHECKING:
    from keras_echo import layers, testing
    from keras_echo.adapting.remedies import Remedy
    from keras_echo.adapting.tuner import EchoDecision
    from keras_echo.backup import BackupAndRestore
    from keras_echo.callback import DataEchoCallback
    from keras_echo.dataset import EchoingPyDataset
    from keras_echo.factor import EchoFactor
    from keras_echo.metering import EchoStats, SkippedRead
    from keras_echo.profiling.analyze import analyze
    from keras_echo.profiling.measuring.result import StepBreakdown
    from keras_echo.reading.cache import Cache
    from keras_echo.reading.on_error import Retry, Skip
    from keras_echo.serving.augmentation import call_seeded
    from keras_echo.tf_data import echo

__all__ = [
    "BackupAndRestore",
    "Cache",
    "DataEchoCallback",
    "EchoDecision",
    "EchoFactor",
    "EchoStats",
    "EchoingPyDataset",
    "Remedy",
    "Retry",
    "Skip",
    "SkippedRead",
    "StepBreakdown",
    "__version__",
    "analyze",
    "call_seeded",
    "echo",
    "layers",
    "testing",
]

_HOMES = {
    "BackupAndRestore": "backup",
    "Cache": "reading.cache",
    "DataEchoCallback": "callback",
    "EchoDecision": "adapting.tuner",
    "EchoFactor": "factor",
    "EchoStats": "metering",
    "EchoingPyDataset": "dataset",
    "Remedy": "adapting.remedies",
    "Retry": "reading.on_error",
    "Skip": "reading.on_error",
    "SkippedRead": "metering",
    "StepBreakdown": "profiling.measuring.result",
    "analyze": "profiling.analyze",
    "call_seeded": "serving.augmentation",
    "echo": "tf_data",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: Keras takes seconds, and not all need it."""
    with needing_backend():
        if name in ("layers", "testing"):
            return import_module(f"{__name__}.{name}")
        if name in _HOMES:
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
