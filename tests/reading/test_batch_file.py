"""A batch comes back from its file as it was, or not at all."""

import tempfile
from collections import namedtuple
from pathlib import Path

import keras  # noqa: F401  # has NumPy know bfloat16
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.memory.pool import Pool
from keras_echo.reading.batch_file import DamagedError, NoRawBytesError, Packed, read

DTYPES = ["uint8", "float32", ">f4", "bool", "complex64", "U3", "S2", "M8[ns]", "V5", "bfloat16"]
LABEL = {"index": 3, "length": 8}


def of_bytes(shape, dtype, seed):
    """An array whose bytes are random; of strings they are digits, which all dtypes can hold."""
    dtype = np.dtype(dtype)
    draw = np.random.default_rng(seed)
    if dtype.kind == "U":
        return draw.integers(0, 999, shape).astype(dtype)
    if dtype.kind == "b":
        return draw.integers(0, 2, shape).astype(dtype)
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(draw.bytes(num_bytes), dtype).reshape(shape)


arrays = st.builds(
    of_bytes,
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
    st.sampled_from(DTYPES),
    st.integers(0, 99),
)
batches = st.recursive(
    arrays | st.none(),
    lambda nodes: (
        st.lists(nodes, max_size=3)
        | st.lists(nodes, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from(["b", "a", "ä", "tuple", "dtype"]), nodes, max_size=3)
    ),
    max_leaves=6,
)


def assert_same(found, batch):
    assert type(found) is type(batch)
    if isinstance(batch, np.ndarray):
        assert (found.dtype, found.shape) == (batch.dtype, batch.shape)
        assert found.tobytes() == batch.tobytes()
    elif isinstance(batch, dict):
        assert list(found) == list(batch)
        for key in batch:
            assert_same(found[key], batch[key])
    elif batch is not None:
        assert len(found) == len(batch)
        for one, other in zip(found, batch, strict=True):
            assert_same(one, other)


@pytest.fixture(scope="module")
def path():
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder, "3.batch")


@given(batch=batches, label=st.sampled_from([LABEL, 7, ["x", None]]), is_pooled=st.booleans())
def test_a_batch_comes_back_bit_for_bit(path, batch, label, is_pooled):
    packed = Packed(batch, label)
    packed.write(path)
    assert path.stat().st_size == packed.num_bytes
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    found = read(path, label, Pool().empty if is_pooled else np.empty)
    assert_same(found, batch)


@pytest.mark.parametrize("view", [lambda a: a.T, lambda a: a[::2], lambda a: a[:, 1:]])
def test_views_are_written_as_what_they_show(path, view):
    batch = view(np.arange(12.0).reshape(4, 3))
    Packed(batch, 0).write(path)
    np.testing.assert_array_equal(read(path, 0), batch)


def test_arrays_of_several_pieces(path):
    batch = of_bytes((3, 2**19 - 1), "uint8", 0), of_bytes((2**20,), "uint8", 1)
    Packed(batch, 0).write(path)
    assert_same(read(path, 0), batch)


DAMAGES = {
    "flipped": lambda data, at: data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :],
    "zeroed": lambda data, at: data[:at] + bytes(len(data) - at),
    "all zero": lambda data, at: bytes(len(data)),
    "cut off": lambda data, at: data[:at],
    "longer": lambda data, at: data + data[:at] + b"\0",
    "begins late": lambda data, at: data[at + 1 :],
}


@given(
    batch=st.tuples(arrays, arrays),
    at=st.floats(0, 1, exclude_max=True),
    kind=st.sampled_from(sorted(DAMAGES)),
)
def test_no_damage_is_missed(path, batch, at, kind):
    Packed(batch, LABEL).write(path)
    whole = path.read_bytes()
    damaged = DAMAGES[kind](whole, int(at * len(whole)))
    path.write_bytes(damaged)
    if damaged == whole:  # zeros that were there
        assert_same(read(path, LABEL), batch)
        return
    with pytest.raises(DamagedError):
        read(path, LABEL)


def test_a_file_under_another_name_is_noticed(path):
    Packed(np.zeros(3), LABEL).write(path)
    with pytest.raises(DamagedError, match=r"it holds {'index': 3, 'length': 8}"):
        read(path, LABEL | {"index": 4})


Pair = namedtuple("Pair", "x y")


@pytest.mark.parametrize(
    "batch",
    [
        np.array(["a", None]),
        np.ma.masked_array([1, 2], [True, False]),
        np.zeros(2, [("a", "f4")]),
        np.zeros(2, [("a", "O")]),
        Pair(np.zeros(1), np.zeros(1)),
        {1: np.zeros(1)},
        (np.zeros(1), 2.0),
        "text",
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_what_has_no_raw_bytes_is_not_written(batch):
    with pytest.raises(NoRawBytesError):
        Packed(batch, LABEL)
