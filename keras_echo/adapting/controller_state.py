"""What `DataEchoCallback` has learnt, as an object and as JSON.

Pure: no clock, no I/O, no Keras.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, TypeVar

from keras_echo._messages import expected
from keras_echo.adapting.tuner import EchoDecision
from keras_echo.adapting.worth import Sample
from keras_echo.factor import check_factor
from keras_echo.profiling.measuring.reading import Reading, Setup
from keras_echo.profiling.measuring.result import StepBreakdown

T = TypeVar("T")

_VERSION = 1
_NUM_KEPT = 100  # decisions, and windows: R is the median of far less


@dataclass(frozen=True)
class ControllerState:
    """What was learnt so far.

    Attributes:
        step: Optimizer steps so far.
        factor: The echoing factor.
        history: The windows since R has changed, the latest last.
        decisions: What was decided, the latest last.
        problems: Why there were windows without a trace.
        samples: What was learnt of the worth of uses.
        limit: The most uses that are of use; infinity for any number.
        is_settled: Whether R is known well enough.
        has_compared: Whether less readers have been tried.
        locked_fraction: Share of the time in which somebody held the interpreter's lock.
    """

    step: int
    factor: float
    history: tuple[StepBreakdown, ...]
    decisions: tuple[EchoDecision, ...]
    problems: tuple[str, ...]
    samples: tuple[Sample, ...]
    limit: float
    is_settled: bool
    has_compared: bool
    locked_fraction: float

    def as_json(self) -> dict[str, Any]:
        """The state in types that JSON knows; of history and decisions, the last hundred."""
        made = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        made["history"] = made["history"][-_NUM_KEPT:]
        made["decisions"] = made["decisions"][-_NUM_KEPT:]
        return {"version": _VERSION, **made}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> ControllerState:
        """The reverse of `as_json`.

        Raises:
            ValueError: If `state` doesn't come from there.
        """
        try:
            if state["version"] != _VERSION:
                raise ValueError(state["version"])
            return cls(
                step=_as("int", state["step"]),
                factor=check_factor("factor", state["factor"]),
                history=_each("StepBreakdown", state["history"]),
                decisions=_each("EchoDecision", state["decisions"]),
                problems=_each("str", state["problems"]),
                samples=tuple(_sample(*each) for each in state["samples"]),
                limit=math.inf if state["limit"] is None else _as("float", state["limit"]),
                is_settled=_as("bool", state["is_settled"]),
                has_compared=_as("bool", state["has_compared"]),
                locked_fraction=_as("float", state["locked_fraction"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                expected(
                    "state",
                    f"be what DataEchoCallback.state_dict() returned, version {_VERSION}",
                    state,
                    "Save it as it is, and load it with the same keras_echo",
                )
            ) from error


def _plain(value: Any) -> Any:
    """The same in types that JSON knows: lists for tuples, None for what isn't finite."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_NESTED = {
    "EchoDecision": EchoDecision,
    "StepBreakdown": StepBreakdown,
    "Reading | None": Reading,
    "Setup": Setup,
}
_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,)}


def _made(kind: type[T], data: dict[str, Any]) -> T:
    """The reverse of `_plain` for a dataclass, each field of its type."""
    assert is_dataclass(kind)
    if not isinstance(data, dict) or data.keys() != {field.name for field in fields(kind)}:
        raise ValueError(f"{kind.__name__} has other fields")
    return kind(**{field.name: _as(str(field.type), data[field.name]) for field in fields(kind)})


def _as(annotation: str, value: Any) -> Any:
    """A value of a type, which is named as in the source of the dataclass."""
    if annotation == "float" and value is None:
        return math.nan
    if annotation.endswith("| None") and value is None:
        return None
    if annotation in _NESTED:
        return _made(_NESTED[annotation], value)
    if annotation == "tuple[str, ...]":
        return _each("str", value)
    kinds = _KINDS.get(annotation.removesuffix(" | None"), (str,))
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{value!r} is no {annotation}")
    return value


def _each(annotation: str, values: Any) -> tuple[Any, ...]:
    """Values of a type, as a tuple."""
    if not isinstance(values, list):
        raise TypeError(f"{values!r} is no list")
    return tuple(_as(annotation, each) for each in values)


def _sample(use: Any, decrease: Any, before: Any) -> Sample:
    return Sample(_as("int", use), _as("float", decrease), _each("float", before))
