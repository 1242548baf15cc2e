"""A source's state comes back from JSON as it was; what isn't one is refused."""

import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from keras_echo.reading.state_json import from_json, to_json

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**130), 2**130)
    | st.floats()
    | st.text()
    | st.binary(max_size=20)
)
DTYPES = hypothesis_numpy.scalar_dtypes()
ARRAYS = hypothesis_numpy.arrays(
    DTYPES, hypothesis_numpy.array_shapes(min_dims=0, min_side=0, max_side=3)
)
KEYS = st.integers() | st.text() | st.tuples(st.integers(), st.booleans())
STATES = st.recursive(
    SCALARS | ARRAYS | DTYPES.flatmap(hypothesis_numpy.from_dtype),
    lambda states: (
        st.lists(states, max_size=3)
        | st.lists(states, max_size=3).map(tuple)
        | st.dictionaries(KEYS, states, max_size=3)
    ),
    max_leaves=12,
)


def described(state):
    """The state with its types, as it can be compared: nan too."""
    if isinstance(state, (list, tuple)):
        return type(state), [described(each) for each in state]
    if isinstance(state, dict):
        return dict, [(described(key), described(value)) for key, value in state.items()]
    if isinstance(state, (np.ndarray, np.generic)):
        return type(state), state.dtype, state.shape, state.tobytes()
    return type(state), repr(state)


@given(STATES)
def test_a_state_comes_back_as_it_was(state):
    saved = json.dumps(to_json(state), allow_nan=False)
    assert described(from_json(json.loads(saved))) == described(state)


@given(ARRAYS)
def test_an_array_that_comes_back_is_its_owners(array):
    saved = to_json(array)
    assert from_json(saved).flags.writeable
    assert not np.shares_memory(from_json(saved), from_json(saved))


def test_the_states_of_generators_come_back():
    for kind in (np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64):
        generator, other = np.random.Generator(kind(1)), np.random.Generator(kind(2))
        saved = json.dumps(to_json(generator.bit_generator.state))
        other.bit_generator.state = from_json(json.loads(saved))
        assert other.random(5).tolist() == generator.random(5).tolist()


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="tensors are PyTorch's")
def test_tensors_come_back():
    import torch

    for tensor in (
        torch.Generator().manual_seed(7).get_state(),
        torch.arange(6.0).reshape(2, 3).t(),
        torch.tensor(1.5, dtype=torch.bfloat16),
        torch.zeros(0, 3, dtype=torch.bool),
    ):
        back = from_json(json.loads(json.dumps(to_json(tensor))))
        assert back.dtype == tensor.dtype
        assert back.shape == tensor.shape
        assert torch.equal(back, tensor)
    with pytest.raises(TypeError, match="must consist of"):
        to_json(torch.eye(3).to_sparse())


@pytest.mark.parametrize(
    "state", [object(), {1, 2}, np.random.default_rng(), np.array([{}]), [print], 1j]
)
def test_what_json_would_lose_is_refused(state):
    with pytest.raises(TypeError) as caught:
        to_json({"key": [state]})
    assert str(caught.value).startswith(
        "The state of a source must consist of None, bool, int, float, str, bytes, NumPy arrays "
        "and PyTorch tensors, in dicts, lists and tuples. Received: "
    )


@pytest.mark.parametrize(
    "node",
    [
        {},
        {"pickle": "gASVAAAAAA=="},
        {"tuple": 1},
        {"dict": [[1]]},
        {"bytes": "?"},
        {"array": ["|O", [1], "AAAAAAAAAAA="]},
        {"array": ["<f4", [3], "AAAA"]},
        {"array": ["nothing", [1], "AAAA"]},
        {"scalar": None},
        {"float": "x", "tuple": []},
    ],
)
def test_what_was_not_saved_so_is_refused(node):
    with pytest.raises(ValueError, match=r"^The state of a source must be as it was saved\."):
        from_json([node])
