import copy
import json
import math
from dataclasses import replace

import pytest

from keras_echo.adapting.controller_state import ControllerState
from keras_echo.adapting.tuner import EchoDecision
from keras_echo.adapting.worth import Sample
from keras_echo.profiling.measuring.reading import Reading, Setup
from keras_echo.profiling.measuring.result import StepBreakdown

SETUP = Setup(2, 10, 4, False, True, False, True, batch_bytes=1e6)
BREAKDOWN = StepBreakdown(
    10, 0.02, 0.01, 0.08, 0.02, bound="lower", num_readers=2, reading=Reading(SETUP, 0.1, 0.05)
)
STATE = ControllerState(
    step=120,
    factor=3.5,
    history=(BREAKDOWN, replace(BREAKDOWN, reading=None, missing=("steps",), path="a/b")),
    decisions=(EchoDecision(30, BREAKDOWN, 3.5, 1.0, "R = 4.00", math.nan),),
    problems=("another profiler is running",),
    samples=(Sample(2, 0.25, (0.5, -1.0)),),
    limit=math.inf,
    is_settled=True,
    has_compared=False,
    locked_fraction=math.nan,
)


def as_loaded():
    return json.loads(json.dumps(STATE.as_json(), allow_nan=False))


def test_comes_back_from_json():
    loaded = ControllerState.from_json(as_loaded())
    assert repr(loaded) == repr(STATE)  # NaN differs from itself
    assert repr(replace(STATE, limit=2.5)) == repr(
        ControllerState.from_json(replace(STATE, limit=2.5).as_json())
    )


def test_keeps_the_last_hundred():
    long = replace(STATE, decisions=tuple(replace(STATE.decisions[0], step=n) for n in range(150)))
    loaded = ControllerState.from_json(long.as_json())
    assert [each.step for each in loaded.decisions] == list(range(50, 150))


def everywhere(node, path=()):
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from everywhere(value, (*path, key))


@pytest.mark.parametrize("wrong", [{}, [[]], "text", True, "2"])
def test_what_is_damaged_is_refused(wrong):
    for path in everywhere(as_loaded()):
        if path[-1] in ("samples", "path"):  # the first may be empty, the other one any text
            continue
        state = copy.deepcopy(as_loaded())
        node = state
        for key in path[:-1]:
            node = node[key]
        if node[path[-1]] == wrong or type(node[path[-1]]) is type(wrong):
            continue
        node[path[-1]] = wrong
        with pytest.raises(ValueError, match=r"^state must be what DataEchoCallback\.state_dict"):
            ControllerState.from_json(state)


def test_what_is_missing_is_refused():
    for path in everywhere(as_loaded()):
        state = as_loaded()
        node = state
        for key in path[:-1]:
            node = node[key]
        if isinstance(node, dict):
            del node[path[-1]]
            with pytest.raises(ValueError, match=r"^state must be"):
                ControllerState.from_json(state)
