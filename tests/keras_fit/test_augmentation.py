"""augment=: functions and Keras layers, on every copy, on several threads."""

import threading
import time

import keras
import numpy as np
import pytest

from keras_echo import EchoingPyDataset
from keras_echo.serving.augmentation import augmenter, call_seeded

layers = keras.layers
IMAGES = np.random.default_rng(0).uniform(0, 255, (48, 8, 8, 3)).astype("float32")
LABELS = np.arange(48)


class Images(keras.utils.PyDataset):
    """Batch i: images i * 8 to i * 8 + 7."""

    def __init__(self, workers=1, *, as_dict=False):
        super().__init__(workers=workers)
        self.as_dict = as_dict

    def __len__(self):
        return 6

    def __getitem__(self, index):
        rows = slice(index * 8, index * 8 + 8)
        if self.as_dict:
            return {"images": IMAGES[rows].copy(), "labels": np.eye(48, dtype="float32")[rows]}
        return IMAGES[rows].copy(), LABELS[rows]


LAYERS = {
    "flip": lambda: layers.RandomFlip("horizontal", seed=1),
    "pipeline": lambda: layers.Pipeline(
        [layers.RandomFlip(), layers.RandomRotation(0.2), layers.RandomContrast(0.5)]
    ),
    "nested": lambda: layers.Pipeline([layers.RandomColorJitter(brightness_factor=0.5)]),
    "sequential": lambda: keras.Sequential(
        [layers.RandomBrightness(0.3), layers.GaussianNoise(0.5)]
    ),
}


def stream(augment, num=12, **kwargs):
    with EchoingPyDataset(
        Images(kwargs.pop("workers", 1)), augment=augment, echo_factor=2, seed=5, **kwargs
    ) as dataset:
        return [dataset[0] for _ in range(num)]


@pytest.mark.parametrize(
    ("name", "echo"), [*((name, "batch") for name in LAYERS), ("flip", "example")]
)
def test_a_layer_draws_the_same_whatever_the_workers(name, echo):
    layer = LAYERS[name]()
    one = stream(layer, echo=echo)
    many = stream(layer, echo=echo, workers=4)  # the very same layer: it was left as it was
    other = stream(LAYERS[name](), echo=echo, workers=3)
    for (x, y), (x_many, y_many), (x_other, _) in zip(one, many, other, strict=True):
        assert isinstance(x, np.ndarray)
        assert x.shape == (8, 8, 8, 3)
        np.testing.assert_array_equal(y, y_many)
        np.testing.assert_array_equal(x, x_many)
        np.testing.assert_array_equal(x, x_other)


@pytest.mark.parametrize("name", ["flip", "pipeline", "sequential"])
def test_copies_differ(name):
    batches = stream(LAYERS[name](), num=12, shuffle_buffer=0)
    for (x, y), (x_again, y_again) in zip(batches[::2], batches[1::2], strict=True):
        np.testing.assert_array_equal(y, y_again)
        assert not np.array_equal(x, x_again)


# Keras's own, in MixUp on JAX.
@pytest.mark.filterwarnings("ignore:.*dtype int64 requested in arange:UserWarning")
def test_a_layer_takes_the_dict_where_the_batch_is_one():
    with EchoingPyDataset(
        Images(as_dict=True), augment=layers.MixUp(seed=1), echo_factor=2, shuffle=False
    ) as dataset:
        first, second = dataset[0], dataset[0]
    assert set(first) == {"images", "labels"}
    np.testing.assert_allclose(first["labels"].sum(axis=1), 1, rtol=1e-5)
    assert (np.count_nonzero(first["labels"], axis=1) == 2).any()
    assert not np.array_equal(first["labels"], second["labels"])


def test_a_layer_takes_x_alone_where_the_batch_is_a_tuple():
    x, y, w = augmenter(layers.Rescaling(2.0))((IMAGES, "y", "w"), np.random.default_rng(0))
    np.testing.assert_allclose(x, IMAGES * 2)
    assert (y, w) == ("y", "w")
    (x,) = augmenter(layers.Rescaling(2.0))((IMAGES,), np.random.default_rng(0))
    np.testing.assert_allclose(x, IMAGES * 2)


def test_labels_and_boxes_with_a_function():
    layer = layers.RandomFlip("horizontal", bounding_box_format="xyxy")
    boxes = {"boxes": np.full((8, 2, 4), [1, 1, 3, 4], "float32"), "labels": np.zeros((8, 2))}

    def augment(batch, rng):
        images, bounding_boxes = batch
        data = call_seeded(layer, {"images": images, "bounding_boxes": bounding_boxes}, rng)
        return data["images"], data["bounding_boxes"]

    images = IMAGES[:8]
    flipped, moved = augmenter(augment)((images.copy(), boxes), np.random.default_rng(3))
    is_flipped = ~(flipped == images).all(axis=(1, 2, 3))
    assert 0 < is_flipped.sum() < 8
    np.testing.assert_array_equal(flipped[is_flipped], images[is_flipped, :, ::-1])
    assert (moved["boxes"][is_flipped] == [5, 1, 7, 4]).all()
    assert (moved["boxes"][~is_flipped] == [1, 1, 3, 4]).all()


def test_weights_of_a_layer_are_used_and_left_alone():
    layer = layers.Normalization(axis=-1)
    layer.adapt(IMAGES)
    before = [keras.ops.convert_to_numpy(weight) for weight in layer.weights]
    out = call_seeded(layer, IMAGES, np.random.default_rng(0))
    np.testing.assert_allclose(out.mean(axis=(0, 1, 2)), 0, atol=1e-3)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)


def test_calls_on_threads_share_nothing():
    layer = LAYERS["pipeline"]()
    alone = [call_seeded(layer, IMAGES, np.random.default_rng(n)) for n in range(8)]
    results = {}
    start = threading.Barrier(8)

    def call(number):
        start.wait(20)
        for _ in range(5):
            results[number] = call_seeded(layer, IMAGES, np.random.default_rng(number))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        np.testing.assert_array_equal(results[number], alone[number])


def test_a_function_may_ask_for_random_numbers():
    def augment(batch, rng):
        return batch[0], batch[1] + rng.integers(1000)

    class Scale:
        def __call__(self, batch, *, rng):
            return batch[0], batch[1] + rng.integers(1000)

    one = [y.tolist() for _, y in stream(augment)]
    assert one == [y.tolist() for _, y in stream(augment, workers=4)]
    assert one == [y.tolist() for _, y in stream(Scale())]
    assert one[0] != one[1]


def test_a_plain_function_gets_the_batch_alone():
    def augment(batch, strength=1):
        return batch[0], batch[1] + strength

    plain, augmented = stream(lambda batch: batch), stream(augment)
    for (_, y), (_, y_augmented) in zip(plain, augmented, strict=True):
        np.testing.assert_array_equal(y + 1, y_augmented)
    assert augmenter(np.asarray)([1], np.random.default_rng(0)).tolist() == [1]  # written in C


def test_copies_are_augmented_in_parallel_and_served_in_order():
    all_at_once = threading.Barrier(3, timeout=20)
    started = []

    def augment(batch):
        started.append(time.monotonic())
        if len(started) <= 3:
            all_at_once.wait()
        return batch

    batches = stream(augment, workers=3, shuffle=False, shuffle_buffer=0)
    assert [int(y[0]) for _, y in batches] == [i // 2 * 8 for i in range(12)]


def test_augmented_copies_are_distributed_as_unechoed_ones():
    """Kolmogorov and Smirnov's two-sample test, at an error of 1 in 10,000.

    The brightness that RandomBrightness adds, uniform in -51 to 51, to 400 copies of grey images:
    every one of 4 uses, and each alone, against 400 fresh ones.
    """
    layer = layers.RandomBrightness(0.2, seed=1)
    grey = np.full((100, 2, 2, 1), 128, "float32")

    def added(factor):
        with EchoingPyDataset(
            (grey, np.zeros(100)), batch_size=1, echo_factor=factor, augment=layer, seed=11
        ) as dataset:
            return np.array([dataset[0][0][0, 0, 0, 0] - 128 for _ in range(400)])

    fresh, echoed = added(1), added(4)
    uniform = np.linspace(-51, 51, 10_001)
    for one, other in (
        (echoed, fresh),
        *((echoed[use::4], fresh) for use in range(4)),
        (echoed, uniform),
    ):
        assert distance(one, other) < critical(len(one), len(other))
    # Successive uses of one image are independent: correlations of 300 have a spread of 0.06.
    assert abs(np.corrcoef(echoed[:-1], echoed[1:])[0, 1]) < 4 * 0.06
    assert distance(echoed, echoed[::4] * 0 + echoed[0]) > critical(400, 100)  # it can fail


def distance(one, other):
    """The largest distance between two empirical distribution functions."""
    at = np.concatenate([one, other])
    below = [
        np.searchsorted(np.sort(sample), at, side="right") / len(sample) for sample in (one, other)
    ]
    return np.abs(below[0] - below[1]).max()


def critical(num_one, num_other, error=1e-4):
    """The distance that equal distributions exceed with probability `error`."""
    return np.sqrt(-np.log(error / 2) / 2 * (num_one + num_other) / (num_one * num_other))


def test_fit_with_a_layer(recorder):
    with EchoingPyDataset(
        Images(2), augment=layers.RandomFlip(), echo="example", echo_factor=2.5
    ) as dataset:
        model = keras.Sequential(
            [keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(1, kernel_initializer="zeros")]
        )
        model.compile("adam", "mse")
        history = model.fit(dataset, epochs=3, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_layers_of_keras_hub():
    keras_hub = pytest.importorskip("keras_hub")
    tokens = np.arange(128).reshape(4, 32)
    swap = keras_hub.layers.RandomSwap(rate=0.5)
    first, again, other = (
        call_seeded(swap, tokens, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other
    resize = keras_hub.layers.ImageConverter(image_size=(4, 4))
    assert augmenter(resize)((IMAGES, 0), np.random.default_rng(0))[0].shape == (48, 4, 4, 3)


def test_layers_of_keras_cv():
    """They draw from TensorFlow's generators: anew for every copy, but not by our seed."""
    keras_cv = pytest.importorskip("keras_cv")
    for x, y in stream(keras_cv.layers.RandomFlip("horizontal"), workers=3):
        is_flipped = ~(x == IMAGES[y]).all(axis=(1, 2, 3))
        np.testing.assert_array_equal(x[is_flipped], IMAGES[y][is_flipped, :, ::-1])
        assert x.dtype == np.float32
