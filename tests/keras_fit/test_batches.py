"""Any structure that Keras accepts, and copies that know nothing of each other."""

import keras
import numpy as np
import pytest

from keras_echo import EchoingPyDataset

X = np.arange(12, dtype="float32").reshape(12, 1)
STRUCTURES = {
    "x, y": (X, X),
    "x, y, w": (X, X, np.ones(12, "float32")),
    "dict": ({"a": X, "b": X}, X),
    "nested": ({"a": (X, X), "b": {"c": X}}, {"out": X}),
    "None": ({"a": X, "b": None}, X),
    "x": (X,),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_are_kept_and_copies_are_apart(name):
    arrays = STRUCTURES[name]
    with EchoingPyDataset(
        arrays, echo_factor=3, shuffle_buffer=0, batch_size=4, shuffle=False, placement="host"
    ) as dataset:
        for step in range(9):
            batch = dataset[step]
            keras.tree.assert_same_structure(batch, arrays)
            for leaf in keras.tree.flatten(batch):
                if leaf is not None and leaf.ndim == 2:
                    expected = X[step // 3 * 4 : step // 3 * 4 + 4]
                    np.testing.assert_array_equal(leaf, expected)
                if leaf is not None:
                    leaf[...] = -1


@pytest.mark.parametrize("shuffle_buffer", [0, 5])
@pytest.mark.parametrize("factor", [1.0, 1.5, 3.0])
def test_an_augmentation_in_place_never_reaches_the_next_copy(factor, shuffle_buffer):
    def in_place(batch):
        batch[0][...] += 1000
        return batch

    with EchoingPyDataset(
        (X, X),
        echo_factor=factor,
        batch_size=4,
        shuffle_buffer=shuffle_buffer,
        augment=in_place,
        seed=3,
    ) as dataset:
        for _ in range(30):
            x, y = dataset[0]
            np.testing.assert_array_equal(x, y + 1000)


def test_tensors_that_can_change_are_copied_and_jax_arrays_are_not():
    backend = keras.backend.backend()
    tensor = keras.ops.convert_to_tensor(X)

    class Tensors(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return tensor, tensor

    with EchoingPyDataset(Tensors(), echo_factor=2, placement="host") as dataset:
        dataset[0], dataset[1], dataset[2]  # a look may come again, and is served as a copy
        first, second = dataset[3][0], dataset[4][0]
    if backend == "torch":
        assert first is not second
        first.zero_()
        assert second.sum() > 0
    elif backend == "tensorflow":  # whose tf.data writes into the memory that it is handed
        assert not np.shares_memory(*map(keras.ops.convert_to_numpy, (first, second)))
        np.testing.assert_array_equal(first, second)
    else:
        assert first is second


@pytest.mark.parametrize("batch", [(), (X, X, X, X), None, "x", 3])
def test_other_structures_are_refused(batch):
    class Wrong(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return batch

    with (
        EchoingPyDataset(Wrong()) as dataset,
        pytest.raises(ValueError, match=r"^A batch") as caught,
    ):
        dataset[0]
    assert str(caught.value).startswith(
        "A batch of the source must be a tuple (x,), (x, y) or (x, y, sample_weight), a dict, or x "
        "alone as an array. Received: "
    )


def test_trains_a_model_of_several_inputs():
    a, b = keras.Input((1,), name="a"), keras.Input((1,), name="b")
    model = keras.Model({"a": a, "b": b}, keras.layers.Dense(1)(keras.layers.Add()([a, b])))
    model.compile("sgd", "mse")
    with EchoingPyDataset(
        ({"a": X, "b": X}, X, np.ones(12, "float32")), echo_factor=2.5, batch_size=4
    ) as dataset:
        history = model.fit(dataset, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
