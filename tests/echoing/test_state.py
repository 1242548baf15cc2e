"""States that were saved are loaded; all others are refused, and change nothing."""

import copy
import json
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_echo import EchoingPyDataset

X = np.arange(40, dtype="float32").reshape(40, 1)
OPTIONS = {
    "plain": {},
    "fractional": {"echo_factor": 2.5, "shuffle_buffer": 0},
    "shuffled": {"echo_factor": 2.0, "shuffle_buffer": 4},
    "examples": {"echo": "example", "echo_factor": 1.5, "shuffle_buffer": 12},
    "by default": {"echo_factor": 2.5},
    "plain examples": {"echo": "example"},
    "examples by default": {"echo": "example", "echo_factor": 1.5},
}
WRONG = [None, math.nan, math.inf, -1, -(2**70), 2**70, 1.5, "3", True, [], {}, [[0, 0]], 0, 1, 7]


def built(kind):
    return EchoingPyDataset((X, X), batch_size=4, seed=3, **OPTIONS[kind])


def served(dataset, num):
    return [keras.ops.convert_to_numpy(dataset[0][0])[:, 0].tolist() for _ in range(num)]


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


@pytest.mark.filterwarnings("ignore:Batch . of pass . of the source must be the one")
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
            try:
                num_served = len(served(dataset, 3))
            except ValueError as error:  # how many examples a batch has is seen when it is read
                num_served = 3 * ("examples, as before" in str(error))
            assert num_served == 3


@pytest.mark.parametrize(
    "change",
    [
        {"echo_factor": 0.5},
        {"echo_factor": math.nan},
        {"position": [-1, 0]},
        {"seed": 1.0},
        {"version": 6},
        {"skipped": {"num": 0, "last": [[3, "OSError: gone"]]}},
        {"skipped": {"num": 1, "last": [[3, None]]}},
        {"skipped": None},
        {"fingerprint": [0, 0, 7]},
        {"fingerprint": [0, 9, "7"]},
        {"bookmarks": [[0, 9, None]]},
        {"bookmarks": [[0, 0, {"pickle": "gASVAAAAAA=="}]]},
        {"echo": {**SAVED["fractional"]["echo"], "credit": math.nan}},
        {"echo": {**SAVED["fractional"]["echo"], "credit": 1.0}},
        {"echo": {**SAVED["fractional"]["echo"], "num_uses": -1}},
        {"echo": {**SAVED["fractional"]["echo"], "num_uses": 10**6}},
        {"echo": {**SAVED["fractional"]["echo"], "held": [[0, 0]]}},
        {"echo": {**SAVED["fractional"]["echo"], "kind": None}},
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


# Saved by version 2, which differs from version 1 in `factors_ahead` alone.
OF_VERSION_2 = {
    "fractional": {
        "version": 2,
        "seed": 3,
        "position": [0, 3],
        "num_uses": 2,
        "credit": 0.5,
        "num_drawn": 9,
        "held": [],
        "num_steps": 9,
        "num_fresh": 4,
        "examples": None,
        "factors_ahead": [],
        "echo_factor": 2.5,
    },
    "shuffled": {
        "version": 2,
        "seed": 3,
        "position": [0, 6],
        "num_uses": 0,
        "credit": 0.0,
        "num_drawn": 9,
        "held": [[0, 5, False], [0, 2, False], [0, 5, False]],
        "num_steps": 9,
        "num_fresh": 6,
        "examples": None,
        "factors_ahead": [],
        "echo_factor": 2.0,
    },
    "examples": {
        "version": 2,
        "seed": 3,
        "position": [0, 8],
        "num_uses": 0,
        "credit": 0.0,
        "num_drawn": 9,
        "held": [],
        "num_steps": 9,
        "num_fresh": 7,
        "examples": {
            "batch_size": 4,
            "num_taken": 32,
            "blocks": [[0, 3, 12, 4], [0, 4, 16, 4], [0, 5, 20, 4], [0, 6, 24, 4], [0, 7, 28, 4]],
            "steps": [14, 1, 4, 4, 1, 3, 1, 1, 1, 1],
            "num_uses": [0, 0, 1, 1, 0, 1, 0, 0, 0, 1],
        },
        "factors_ahead": [],
        "echo_factor": 1.5,
    },
}
SERVED_BY_VERSION_2 = {  # from these states
    "fractional": "38 4 25 22, 0 28 39 35, 0 28 39 35, 10 31 15 24, 10 31 15 24, 10 31 15 24",
    "shuffled": "12 3 21 29, 34 27 13 8, 10 31 15 24, 9 18 6 1, 34 27 13 8, 10 31 15 24",
    "examples": "25 35 1 37, 18 6 26 36, 22 34 37 19, 9 18 14 5, 24 8 12 18, 14 12 8 10",
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_state_of_version_4_is_loaded(kind):
    # It differs from this version in that it doesn't say what was skipped, or what was read.
    state = {**copy.deepcopy(SAVED[kind]), "version": 4}
    del state["skipped"], state["bookmarks"], state["fingerprint"]
    with built(kind) as resumed, built(kind) as whole:
        resumed.load_state_dict(state)
        assert served(resumed, 9) == served(whole, 18)[9:]


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_state_of_version_3_is_loaded(kind):
    # It also doesn't say which uses the shuffle buffer holds.
    state = {**copy.deepcopy(SAVED[kind]), "version": 3}
    del state["skipped"]
    for use in state["echo"].get("held", []):
        assert use.pop() > 0
    with built(kind) as resumed, built(kind) as whole:
        resumed.load_state_dict(state)
        uses = {tuple(use[-1:]) for use in resumed.state_dict()["echo"].get("held", [])}
        assert uses == ({(0,)} if kind in ("shuffled", "by default") else set())
        assert served(resumed, 9) == served(whole, 18)[9:]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", OF_VERSION_2)
def test_a_state_of_an_earlier_version_is_loaded(kind, version):
    state = {**OF_VERSION_2[kind], "version": version}
    if version == 1:
        del state["factors_ahead"]
    with built(kind) as resumed:
        resumed.load_state_dict(state)
        batches = [" ".join(f"{number:g}" for number in batch) for batch in served(resumed, 6)]
    assert ", ".join(batches) == SERVED_BY_VERSION_2[kind]


def test_a_state_of_another_echo_is_refused():
    with (
        built("plain") as dataset,
        pytest.raises(ValueError, match="state must come from a dataset with echo='batch'"),
    ):
        dataset.load_state_dict(SAVED["examples"])


@settings(max_examples=30)
@given(
    echo=st.sampled_from(["batch", "example"]),
    augments=st.booleans(),
    shuffle_buffer=st.sampled_from([0, 5, "auto"]),
    changes=st.lists(st.tuples(st.integers(0, 6), st.just(1.0) | st.floats(1, 5)), max_size=6),
    num_more=st.integers(0, 3),
    is_saved_twice=st.booleans(),
)
def test_after_changes_of_the_factor_the_same_stream_goes_on(
    echo, augments, shuffle_buffer, changes, num_more, is_saved_twice
):
    def noisy(batch, rng):
        return batch[0] + rng.random(), batch[1]

    def dataset():
        return EchoingPyDataset(
            (X, X),
            batch_size=4,
            echo=echo,
            shuffle_buffer=shuffle_buffer,
            augment=noisy if augments else None,
            seed=3,
        )

    with dataset() as whole, dataset() as resumed, dataset() as again:
        for num_steps, factor in changes:
            served(whole, num_steps)
            whole.echo_factor = factor
        served(whole, num_more)
        state = json.loads(json.dumps(whole.state_dict()))
        resumed.load_state_dict(state)
        if is_saved_twice:
            again.load_state_dict(resumed.state_dict())
            resumed = again
        assert served(resumed, 25) == served(whole, 25)
        assert resumed.state_dict() == whole.state_dict()


@pytest.mark.parametrize("num_made_ahead", range(4))
def test_uses_made_ahead_are_made_again_as_they_were(num_made_ahead):
    factors = [2.0, 1.0, 3.0][:num_made_ahead]
    state = {**saved("plain", 0), "factors_ahead": factors, "echo_factor": 4.0}
    with built("plain") as resumed, built("plain") as whole:
        resumed.load_state_dict(state)
        expected = []
        for factor in [*factors, *[4.0] * 8]:
            whole.echo_factor = factor
            expected += served(whole, 1)
        assert served(resumed, len(expected)) == expected
