"""Equal batches have equal fingerprints, however they lie in memory; others have others."""

import keras
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from keras_echo.reading.fingerprint import fingerprint_of

ARRAYS = hypothesis_numpy.arrays(
    hypothesis_numpy.scalar_dtypes(),
    hypothesis_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)


@given(ARRAYS)
def test_the_layout_in_memory_does_not_matter(array):
    expected = fingerprint_of((array, None))
    spread = np.empty((*array.shape, 2), array.dtype)[..., 0]
    spread[...] = array
    for same in (array.copy(), np.asfortranarray(array), spread):
        assert fingerprint_of((same.reshape(array.shape), None)) == expected


@given(ARRAYS, ARRAYS)
def test_other_small_batches_have_other_fingerprints(one, other):
    assume((one.dtype, one.shape, one.tobytes()) != (other.dtype, other.shape, other.tobytes()))
    assert fingerprint_of(one) != fingerprint_of(other)
    assert fingerprint_of({"a": one, "b": other}) != fingerprint_of({"a": other, "b": one})


@given(st.integers(0, 15), st.booleans())
def test_large_arrays_are_looked_at_all_over(sixteenth, is_transposed):
    array = np.zeros((512, 512), "float32")
    changed = array.copy()
    changed[32 * sixteenth : 32 * (sixteenth + 1)] = 1
    if is_transposed:
        array, changed = array.T.copy().T, changed.T.copy().T
    assert fingerprint_of(array) != fingerprint_of(changed)


def test_what_has_no_raw_bytes_counts_by_its_shape():
    objects = [np.array([{}, {}]), np.array([object(), 1], object)]
    assert fingerprint_of(objects[0]) == fingerprint_of(objects[1])
    assert fingerprint_of(objects[0]) != fingerprint_of(objects[0][:1])
    masked = [np.ma.array([1, hidden], mask=[False, True]) for hidden in (2, 3)]
    assert fingerprint_of(masked[0]) == fingerprint_of(masked[1])
    assert fingerprint_of(print) == fingerprint_of(7)  # no batches; that is said elsewhere


@pytest.mark.parametrize("dtype", ["float32", "int32", "bfloat16", "bool"])
def test_tensors_of_the_backend(dtype):
    if keras.backend.backend() == "torch" and dtype == "bfloat16":
        pytest.skip("NumPy takes none of PyTorch's bfloat16")
    one, same, other = (
        keras.ops.convert_to_tensor(np.array(values), dtype)
        for values in ([[0, 1]], [[0, 1]], [[1, 0]])
    )
    assert fingerprint_of((one,)) == fingerprint_of((same,)) != fingerprint_of((other,))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the tensors are PyTorch's")
def test_tensors_that_numpy_does_not_take():
    import torch

    for tensor in (torch.zeros(2, dtype=torch.bfloat16), torch.eye(2).to_sparse()):
        assert fingerprint_of(tensor) == fingerprint_of(tensor.clone())
    grown = torch.ones(2, requires_grad=True)
    assert fingerprint_of(grown) == fingerprint_of(torch.ones(2))
