"""Batches that wait on the device, on the backend of this process (KERAS_BACKEND)."""

import gc
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_echo import EchoingPyDataset
from keras_echo.memory import placement

BACKEND = keras.backend.backend()
X = np.arange(12, dtype="float32").reshape(12, 1)


HAS_PLACE = BACKEND != "tensorflow"  # whose tf.data writes into the memory that it is handed


def is_on_device(array):
    return not isinstance(array, np.ndarray) and ops.is_tensor(array)


def memory(array):
    """Tells apart where arrays lie."""
    if isinstance(array, np.ndarray):
        return array.__array_interface__["data"][0]
    return array.data_ptr() if BACKEND == "torch" else id(array)


def past_looks(dataset):
    """Serves what Keras might only look at."""
    return [dataset[index] for index in range(3)]


@pytest.mark.parametrize("shuffle_buffer", [0, 3])
@pytest.mark.parametrize("factor", [1.0, 2.0, 2.5])
def test_stream_and_state_are_those_of_the_host(recorder, numbered, factor, shuffle_buffer):
    def trained_on(where):
        model = recorder(is_built=False)
        with EchoingPyDataset(
            numbered(5),
            echo_factor=factor,
            shuffle_buffer=shuffle_buffer,
            placement=where,
            seed=2,
        ) as dataset:
            model.fit(dataset, epochs=2, verbose=0)
            state = dataset.state_dict()
        with EchoingPyDataset(
            numbered(5), shuffle_buffer=shuffle_buffer, placement=where, seed=2
        ) as dataset:
            dataset.load_state_dict(state)
            model.fit(dataset, epochs=2, verbose=0)
            return model.trained_on(), state, dataset.state_dict()

    assert trained_on("device") == trained_on("host") == trained_on("auto")


def test_training_is_the_same_bit_for_bit():
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(50, 3)).astype("float32"), rng.normal(size=50).astype("float32")

    def weights(where):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.01), "mse")
        with EchoingPyDataset(arrays, echo_factor=2.5, batch_size=8, placement=where) as dataset:
            model.fit(dataset, epochs=3, verbose=0)
        return [weight.tobytes() for weight in model.get_weights()]

    assert weights("device") == weights("host")


@pytest.mark.parametrize("where", ["device", "auto"])
def test_a_batch_is_transferred_once(where):
    arrays = ({"a": X, "b": X.astype("uint8"), "none": None}, X[:, 0] > 3)
    with EchoingPyDataset(
        arrays, echo_factor=4, shuffle_buffer=0, batch_size=4, shuffle=False, placement=where
    ) as dataset:
        past_looks(dataset)
        dataset[3]
        batches = [dataset[index] for index in range(4, 8)]
    for batch in batches:
        keras.tree.assert_same_structure(batch, arrays)
        for leaf, first, given in zip(
            *map(keras.tree.flatten, (batch, batches[0], arrays)), strict=True
        ):
            if given is not None:
                assert is_on_device(leaf) == HAS_PLACE
                assert (memory(leaf) == memory(first)) == (HAS_PLACE or leaf is first)
                np.testing.assert_array_equal(ops.convert_to_numpy(leaf), given[4:8])


def test_at_factor_one_nothing_is_placed():
    with EchoingPyDataset((X,), batch_size=4, placement="device") as dataset:
        assert all(isinstance(dataset[index][0], np.ndarray) for index in range(9))


def test_what_a_backend_has_no_array_for_stays_as_it_is():
    words = np.array(["a", "b"])

    class Words(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return {"words": words, "numbers": X[:2], "nothing": None}

    with EchoingPyDataset(Words(), echo_factor=3, placement="device") as dataset:
        for batch in past_looks(dataset):
            # Of strings, Keras on TensorFlow takes tensors only.
            assert ops.is_tensor(batch["words"]) == (BACKEND == "tensorflow")
            assert list(np.asarray(batch["words"]).astype(str)) == ["a", "b"]
            assert batch["words"] is not words
            assert is_on_device(batch["numbers"]) == HAS_PLACE


@pytest.mark.skipif(BACKEND != "torch", reason="only PyTorch's tensors can be changed")
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.zero_(),
        lambda x: x.add_(1),
        lambda x: x[:, 0].mul_(3),
        lambda x: x.detach().view(-1).fill_(7),
        lambda x: x.requires_grad_().sum().backward(),
    ],
)
def test_an_in_place_change_never_reaches_the_next_copy(change):
    with EchoingPyDataset((X, X), echo_factor=5, batch_size=12, shuffle=False) as dataset:
        for index in range(12):
            x, y = dataset[index]
            np.testing.assert_array_equal(ops.convert_to_numpy(x), X)
            np.testing.assert_array_equal(ops.convert_to_numpy(y), X)
            assert x.grad is None
            assert not x.requires_grad
            change(x)


@pytest.mark.skipif(BACKEND != "torch", reason="only PyTorch's tensors can be changed")
def test_a_model_that_changes_its_inputs_in_place(recorder, numbered):
    class Careless(type(recorder())):
        def call(self, inputs, training=False):
            outputs = super().call(inputs, training=training)
            inputs.add_(100)
            return outputs

    model = Careless()
    with EchoingPyDataset(
        numbered(3), echo_factor=2, shuffle=False, shuffle_buffer=0, placement="device"
    ) as dataset:
        model.fit(dataset, epochs=2, verbose=0)
    assert model.trained_on() == [0, 0, 1, 1, 2, 2]


@pytest.mark.skipif(BACKEND != "torch", reason="a mode of PyTorch")
def test_inference_tensors_which_have_no_version():
    import torch

    with (
        torch.inference_mode(),
        EchoingPyDataset((X,), echo_factor=4, batch_size=12, shuffle=False) as dataset,
    ):
        for index in range(8):
            (x,) = dataset[index]
            np.testing.assert_array_equal(ops.convert_to_numpy(x), X)
            x.zero_()


@pytest.mark.skipif(BACKEND != "torch", reason="a private name of PyTorch's")
def test_pytorch_counts_changes_of_shared_memory():
    import torch

    tensor = torch.zeros(3)
    before = tensor._version
    tensor.detach()[:1].add_(1)
    assert tensor._version > before


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX donates")
def test_donated_and_deleted_copies_are_transferred_again():
    import jax

    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    with EchoingPyDataset((X,), echo_factor=4, batch_size=12, shuffle=False) as dataset:
        for index in range(8):
            (x,) = dataset[index]
            np.testing.assert_array_equal(np.asarray(x), X)
            if index % 2:
                step(x)
            else:
                x.delete()


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX says what is on its devices")
def test_no_more_batches_on_the_device_than_documented():
    import jax

    x = np.zeros((40, 7, 3), "float32")
    gc.collect()  # what other tests left; here nothing is left in cycles
    with EchoingPyDataset(
        (x,), echo_factor=1.5, shuffle_buffer=4, batch_size=2, placement="device"
    ) as dataset:
        for index in range(100):
            dataset[index]
            held = sum(array.shape == (2, 7, 3) for array in jax.live_arrays())
            assert held <= 4 + 3


@pytest.mark.parametrize("shuffle_buffer", [0, 5, "auto"])
def test_auto_goes_by_the_bytes(monkeypatch, shuffle_buffer):
    def is_placed(limit):
        monkeypatch.setattr(placement, "AUTO_BYTES", limit)
        with EchoingPyDataset(
            (X, X), echo_factor=3, batch_size=4, shuffle_buffer=shuffle_buffer
        ) as dataset:
            past_looks(dataset)
            return is_on_device(dataset[3][0])

    num_shuffled = 0 if shuffle_buffer == "auto" else shuffle_buffer  # keeps to its own bytes
    needed = (num_shuffled + 6) * 4 * (4 + 4)
    assert is_placed(needed) == HAS_PLACE
    assert not is_placed(needed - 1)


def test_with_an_augmentation_copies_are_made_on_the_host():
    def augment(batch):
        assert isinstance(batch[0], np.ndarray)
        return batch

    with EchoingPyDataset((X,), echo_factor=2, augment=augment) as dataset:
        past_looks(dataset)
    with pytest.raises(ValueError, match="placement must be 'auto' or 'host' with augment=") as e:
        EchoingPyDataset((X,), augment=augment, placement="device")
    assert str(e.value).endswith("Leave it out, or augment inside the model.")


DISTRIBUTED = """
import keras, numpy as np
from keras_echo import EchoingPyDataset

distribution = keras.distribution.DataParallel(devices=["cpu:0", "cpu:1"])
keras.distribution.set_distribution(distribution)
x = np.arange(96, dtype="float32").reshape(32, 3)

def trained(where):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    dataset = EchoingPyDataset((x / 96, x[:, :1]), echo_factor=2, batch_size=8, placement=where)
    with dataset:
        model.fit(dataset, epochs=3, verbose=0)
        batch = dataset[0][0]
    return model.get_weights()[0].tolist(), batch

weights, batch = trained("device")
layout = distribution.get_data_layout((8, 3)).backend_layout
assert batch.sharding.is_equivalent_to(layout, 2), batch.sharding
assert len(batch.addressable_shards) == 2
assert weights == trained("host")[0]
"""


@pytest.mark.skipif(BACKEND != "jax", reason="Keras distributes on JAX")
def test_under_a_distribution_batches_lie_as_keras_lays_them():
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    subprocess.run([sys.executable, "-c", DISTRIBUTED], env=environment, timeout=100, check=True)
