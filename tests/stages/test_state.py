"""States that were saved are loaded; all others are refused, and change nothing."""

import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_echo import EchoingPyDataset

X = np.arange(40, dtype="float32").reshape(40, 1)
OPTIONS = {
    "plain": {},
    "fractional": {"echo_factor": 2.5},
    "shuffled": {"echo_factor": 2.0, "shuffle_buffer": 4},
    "examples": {"echo": "example", "echo_factor": 1.5, "shuffle_buffer": 12},
}
WRONG = [None, math.nan, math.inf, -1, -(2**70), 2**70, 1.5, "3", True, [], {}, [[0, 0]], 0, 1, 7]


def built(kind):
    return EchoingPyDataset((X, X), batch_size=4, seed=3, **OPTIONS[kind])


def served(dataset, num):
    return [np.asarray(dataset[0][0])[:, 0].tolist() for _ in range(num)]


def saved(kind, num_steps=9):
    with built(kind) as dataset:
        served(dataset, num_steps)
        return json.loads(json.dumps(dataset.state_dict()))


SAVED = {kind: saved(kind) for kind in OPTIONS}


def leaves(value, path=()):
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in pairs:
        if isinstance(below, (dict, list)):
            yield from leaves(below, (*path, key))
        else:
            yield (*path, key)


@settings(max_examples=150)
@given(data=st.data())
def test_a_changed_state_is_refused_or_serves(data):
    kind = data.draw(st.sampled_from(sorted(OPTIONS)))
    state = copy.deepcopy(SAVED[kind])
    *above, key = data.draw(st.sampled_from([path for path in leaves(state) if path]))
    parent = state
    for step in above:
        parent = parent[step]
    if data.draw(st.booleans()):
        del parent[key]
    else:
        parent[key] = data.draw(st.sampled_from(WRONG))
    with built(kind) as dataset:
        served(dataset, 5)
        before = dataset.state_dict()
        try:
            dataset.load_state_dict(state)
        except ValueError:
            assert dataset.state_dict() == before
        else:
            assert len(served(dataset, 3)) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"echo_factor": 0.5},
        {"echo_factor": math.nan},
        {"credit": math.nan},
        {"credit": 1.0},
        {"num_uses": -1},
        {"num_uses": 10**6},
        {"position": [-1, 0]},
        {"seed": 1.0},
        {"held": [[0, 0]]},
    ],
)
def test_what_is_corrupt_changes_nothing(change):
    with built("fractional") as dataset:
        served(dataset, 5)
        before = dataset.state_dict()
        dataset.echo_factor = 4.0
        with pytest.raises(ValueError, match=r"^state must be what state_dict\(\) returned"):
            dataset.load_state_dict({**SAVED["fractional"], **change})
        assert dataset.state_dict() == {**before, "echo_factor": 4.0}


def test_numpy_integers_are_counts():
    with EchoingPyDataset(
        (X, X),
        seed=np.int64(3),
        batch_size=np.int32(4),
        shuffle_buffer=np.uint8(4),
        steps_per_epoch=np.int64(7),
        max_queue_size=np.int16(3),
        workers=np.int64(1),
        echo_factor=np.float32(2.0),
    ) as dataset:
        assert type(len(dataset)) is int
        served(dataset, 5)
        state = json.loads(json.dumps(dataset.state_dict()))
        expected = served(dataset, 5)
    with built("shuffled") as dataset:
        dataset.load_state_dict(state)
        assert served(dataset, 5) == expected
