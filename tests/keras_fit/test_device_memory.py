"""echo="example" with the buffer on the device, on the backend of this process (KERAS_BACKEND)."""

import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_echo import EchoingPyDataset

BACKEND = keras.backend.backend()


class Detection(keras.utils.PyDataset):
    """10 examples in batches of 4, 4 and 2: images, padded boxes, a leaf without data, and text."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        numbers = np.arange(10)[4 * index : 4 * index + 4]
        boxes = np.full((len(numbers), 2, 4), -1.0, "float32")
        boxes[:, 0] = numbers[:, None]
        x = {"images": np.tile(numbers[:, None, None], (1, 2, 2)).astype("uint8"), "none": None}
        return x, {"boxes": boxes, "number": numbers, "text": numbers.astype(str)}


def dataset(placement, **options):
    return EchoingPyDataset(Detection(), echo="example", placement=placement, **options)


def served(data, num):
    def on_host(leaf):
        return leaf if leaf is None else keras.ops.convert_to_numpy(leaf).tolist()

    def plain(leaf):
        return leaf.tolist() if isinstance(leaf, np.ndarray) else on_host(leaf)

    return [keras.tree.map_structure(plain, data[0]) for _ in range(num)]


@settings(max_examples=15)
@given(
    factor=st.floats(1, 5),
    shuffle_buffer=st.sampled_from([0, 1, 23]),
    seed=st.integers(0, 1000),
    stop=st.integers(0, 15),
)
def test_the_stream_is_that_of_the_host(factor, shuffle_buffer, seed, stop):
    options = {"echo_factor": factor, "shuffle_buffer": shuffle_buffer, "seed": seed}
    with dataset("host", **options) as host, dataset("device", **options) as device:
        whole = served(host, 20)
        assert served(device, stop) == whole[:stop]
        state = json.loads(json.dumps(device.state_dict()))
    with dataset("device", **options) as resumed:
        resumed.load_state_dict(state)
        assert served(resumed, 20 - stop) == whole[stop:]


def test_batches_lie_on_the_device_and_share_nothing():
    with dataset("device", echo_factor=1000.0, shuffle_buffer=1, shuffle=False) as data:
        first, _ = data[0]
        assert keras.ops.is_tensor(first["images"])
        if BACKEND == "torch":
            first["images"] += 100
        again, labels = data[0]
    assert keras.ops.convert_to_numpy(again["images"])[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert keras.ops.is_tensor(labels["text"]) == (BACKEND == "tensorflow")  # as fit() takes it


def test_fit_trains_on_it(recorder):
    x = np.arange(12, dtype="float32").reshape(-1, 1)
    with EchoingPyDataset(
        (x, x), echo="example", placement="device", echo_factor=2, batch_size=4, seed=1
    ) as data:
        state = data.state_dict()
        model = recorder()
        model.fit(data, epochs=4, verbose=0)
        data.load_state_dict(state)
        largest = [float(keras.ops.convert_to_numpy(keras.ops.max(data[0][0]))) for _ in range(12)]
    assert model.trained_on() == largest


def test_an_augmentation_works_on_the_host():
    with pytest.raises(ValueError, match=r"^placement must be 'auto' or 'host' for echo='example'"):
        dataset("device", augment=lambda batch: batch)
