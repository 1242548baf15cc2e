"""`RepeatedAugmentation` on the backend of this process."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_echo.layers import RepeatedAugmentation

IMAGES = np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 3)).astype("float32")
LABELS = np.arange(5, dtype="int32")


def zoom(seed=0):
    return keras.layers.RandomTranslation(0.4, 0.4, seed=seed)


def array(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.mark.parametrize(
    "layer", [zoom(), keras.layers.RandomCrop(4, 4, seed=1), keras.layers.Pipeline([zoom(2)])]
)
def test_copies_differ_and_lie_beside_each_other(layer):
    copies = array(RepeatedAugmentation(layer, 6)(IMAGES))
    assert copies.shape[0] == 30
    by_example = copies.reshape(5, 6, -1)
    assert all(len(np.unique(example, axis=0)) > 1 for example in by_example)


def test_images_labels_and_boxes_go_together():
    layer = RepeatedAugmentation(
        keras.layers.RandomFlip("horizontal", seed=3, bounding_box_format="xyxy"), 8
    )
    boxes = np.tile(np.array([[[1.0, 1.0, 3.0, 5.0]]], "float32"), (5, 2, 1))
    batch = {
        "images": IMAGES,
        "labels": LABELS,
        "bounding_boxes": {"boxes": boxes, "labels": np.ones((5, 2), "int32")},
    }
    copies = keras.tree.map_structure(array, layer(batch))
    assert batch["images"] is IMAGES  # not changed in place
    assert batch["bounding_boxes"]["boxes"] is boxes
    assert copies["labels"].tolist() == np.repeat(LABELS, 8).tolist()
    assert copies["bounding_boxes"]["boxes"].shape == (40, 2, 4)
    originals = np.repeat(IMAGES, 8, axis=0)
    is_flipped = copies["bounding_boxes"]["boxes"][:, 0, 0] == 5.0
    assert 0 < is_flipped.sum() < 40
    np.testing.assert_allclose(copies["images"][is_flipped], originals[is_flipped, :, ::-1])
    np.testing.assert_allclose(copies["images"][~is_flipped], originals[~is_flipped])


@pytest.mark.parametrize("rest", [(), (LABELS,), (LABELS, None), ({"y": LABELS}, LABELS / 4)])
def test_of_a_tuple_x_is_augmented_and_the_rest_repeated(rest):
    x, *others = RepeatedAugmentation(zoom(), 3)((IMAGES, *rest))
    assert x.shape[0] == 15
    for other, given in zip(keras.tree.flatten(others), keras.tree.flatten(rest), strict=True):
        if given is None:
            assert other is None
        else:
            np.testing.assert_allclose(array(other), np.repeat(given, 3), rtol=1e-6)


def test_outside_training_the_layer_is_called_once():
    layer = RepeatedAugmentation(zoom(), 3)
    np.testing.assert_array_equal(array(layer(IMAGES, training=False)), IMAGES)
    resized = RepeatedAugmentation(keras.layers.Pipeline([keras.layers.Resizing(4, 4), zoom()]), 3)
    assert resized(IMAGES, training=False).shape == (5, 4, 4, 3)
    assert resized(IMAGES).shape == (15, 4, 4, 3)


class Endpoint(keras.layers.Layer):
    def build(self, input_shape):
        self.dense = keras.layers.Dense(1)
        self.dense.build((None, 192))
        self.seen = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, inputs):
        images, labels = inputs["images"], inputs["labels"]
        outputs = self.dense(ops.reshape(images, (-1, 192)) / 255)
        self.add_loss(ops.mean(ops.square(outputs[:, 0] - ops.cast(labels, "float32"))))
        self.seen.assign(ops.shape(images)[0])
        return outputs


@pytest.mark.parametrize("jit_compile", [True, False])
def test_in_fit_and_in_a_file(jit_compile, tmp_path):
    if keras.backend.backend() == "torch" and jit_compile:
        pytest.skip("torch.compile warns of its own code, and warnings are errors here")
    inputs = {
        "images": keras.Input((8, 8, 3), name="images"),
        "labels": keras.Input((), dtype="int32", name="labels"),
    }
    repeated = RepeatedAugmentation(keras.layers.RandomFlip(seed=0), 4)
    copies = repeated(inputs)
    assert copies["images"].shape == (None, 8, 8, 3)
    endpoint = Endpoint()
    model = keras.Model(inputs, endpoint(copies))
    model.compile("sgd", jit_compile=jit_compile)
    history = model.fit({"images": IMAGES, "labels": LABELS}, batch_size=5, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert int(endpoint.seen) == 20
    assert model.predict({"images": IMAGES, "labels": LABELS}, verbose=0).shape == (5, 1)

    alone = keras.Model(inputs, copies)
    alone.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].copies == 4
    batch = {"images": IMAGES, "labels": LABELS}
    new = RepeatedAugmentation(keras.layers.RandomFlip(seed=0), 4)
    np.testing.assert_array_equal(
        array(loaded(batch, training=True)["images"]), array(new(batch)["images"])
    )


def test_symbolic_shapes():
    layer = RepeatedAugmentation(zoom(), 3)
    assert layer(keras.KerasTensor((5, 8, 8, 3))).shape == (15, 8, 8, 3)


def test_a_layer_with_weights_is_built():
    dense = keras.layers.Dense(2)
    RepeatedAugmentation(dense, 2)((np.ones((4, 3), "float32"), np.ones(4, "float32")))
    assert dense.kernel.shape == (3, 2)


def test_bad_arguments():
    with pytest.raises(ValueError, match="copies must be at least 1"):
        RepeatedAugmentation(zoom(), 0)
    with pytest.raises(TypeError, match="copies must be an integer"):
        RepeatedAugmentation(zoom(), 1.5)
