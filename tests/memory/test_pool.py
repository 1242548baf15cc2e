"""Memory is used again, but never while anything sees it."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.memory.pool import Pool

shapes = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple)


@given(
    actions=st.lists(
        st.tuples(
            shapes, st.sampled_from(["uint8", "float32", "int64", "bool", "U3", "M8[s]", "O"])
        )
        | st.integers(0, 9),
        max_size=30,
    )
)
def test_arrays_that_are_held_keep_their_values(actions):
    pool, held = Pool(), []
    for action in actions:
        if isinstance(action, int):
            del held[action : action + 1]
            continue
        array = pool.empty(*action)
        assert (array.shape, array.dtype) == (action[0], np.dtype(action[1]))
        assert array.flags.c_contiguous
        assert array.flags.writeable
        array[...] = np.full(array.shape, len(held) % 2).astype(array.dtype)
        held.append((array, array.copy()))
        for array, values in held:
            np.testing.assert_array_equal(array, values)


def test_memory_is_used_again_once_nothing_sees_it():
    pool = Pool()
    first = pool.empty((8, 3), "float32")
    address, view = first.ctypes.data, first[2:4].T
    del first
    assert pool.empty((8, 3), "float32").ctypes.data != address  # the view still sees it
    del view
    assert address in {pool.empty((6, 4), "int32").ctypes.data for _ in range(2)}


@pytest.mark.parametrize("num_bytes", [1, 100, 10_000, 40_000_000])
def test_memory_is_aligned_as_jax_wants_it(num_bytes):
    assert Pool().empty((num_bytes,), "uint8").ctypes.data % 64 == 0


def test_no_python_code_runs_when_memory_is_let_go_of():
    """Python loses a Ctrl-C that it notices in a finalizer."""
    called = []
    pool = Pool()
    arrays = [pool.empty((100,), "uint8")]
    sys.setprofile(lambda frame, event, _: called.append((event, frame.f_code.co_name)))
    arrays.clear()
    sys.setprofile(None)
    assert [name for event, name in called if event == "call"] == []
    assert sum(len(idle) for idle in pool._idle.values()) == 1


def test_few_blocks_lie_idle():
    pool = Pool()
    arrays = [pool.empty((100,), "uint8") for _ in range(20)]
    before = {array.ctypes.data for array in arrays}
    del arrays
    again = [pool.empty((100,), "uint8") for _ in range(20)]
    assert len(before & {array.ctypes.data for array in again[:4]}) == 4
    assert sum(len(idle) for idle in pool._idle.values()) == 0
    del again
    assert sum(len(idle) for idle in pool._idle.values()) == 4


def test_memory_of_many_sizes_is_given_back():
    pool = Pool()
    for num_rows in range(1, 400):
        arrays = [pool.empty((num_rows, 1024), "float32") for _ in range(4)]
        largest = sum(array.nbytes for array in arrays)
        del arrays
    idle = sum(returned.block.nbytes for idle in pool._idle.values() for returned in idle)
    assert 2**25 < idle <= 2**26 + largest  # what was let go of since the last request


def test_the_sizes_of_a_large_batch_stay():
    pool = Pool()
    for _ in range(3):
        batch = [pool.empty(shape, "float32") for shape in ((64, 2**20), (64, 1), (2**20, 64))]
        addresses = {array.ctypes.data for array in batch}
        del batch
    again = [pool.empty(shape, "float32") for shape in ((64, 2**20), (64, 1), (2**20, 64))]
    assert {array.ctypes.data for array in again} == addresses
