"""A KerasHub task, trained through its own fit() and through keras.Model.fit()."""

import threading

import keras
import numpy as np
import pytest

from keras_echo import DataEchoCallback, EchoingPyDataset

pytest.importorskip("grain")
tf = pytest.importorskip("tensorflow")
keras_hub = pytest.importorskip("keras_hub")
BACKEND = keras.backend.backend()
NUM_CLASSES = 64


class Seen(keras.metrics.Metric):
    """Records the label of every batch, in order: each batch has one of its own."""

    def __init__(self):
        super().__init__(name="seen")
        self.labels = self.add_weight(shape=(256,), initializer="zeros", name="labels")
        self.count = self.add_weight(shape=(), initializer="zeros", dtype="int32", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        row = keras.ops.one_hot(self.count, 256)
        self.labels.assign(self.labels + row * keras.ops.cast(keras.ops.max(y_true), "float32"))
        self.count.assign(self.count + 1)

    def result(self):
        return keras.ops.cast(self.count, "float32")

    def reset_state(self):
        pass

    def all(self):
        count = int(keras.ops.convert_to_numpy(self.count))
        return [int(label) for label in keras.ops.convert_to_numpy(self.labels)[:count]]


class CountingPreprocessor(keras_hub.models.ImageClassifierPreprocessor):
    """Counts the batches that it is called for, inside of tf.data's graphs too."""

    def __init__(self, image_converter):
        super().__init__(image_converter)
        self.num_calls = [0]  # in a list, or Keras would see a new attribute
        self.lock = threading.Lock()

    def call(self, x, y=None, sample_weight=None):
        if tf.inside_function():
            tf.numpy_function(self.count, [], tf.int64, stateful=True)
        else:
            self.count()
        return super().call(x, y, sample_weight)

    def count(self):
        with self.lock:
            self.num_calls[0] += 1
        return np.int64(0)


class Images(keras.utils.PyDataset):
    """Batch i has label i."""

    def __init__(self, preprocessor=None):
        super().__init__()
        self.preprocessor = preprocessor

    def __len__(self):
        return 16

    def __getitem__(self, index):
        x = np.full((2, 8, 8, 3), index, "uint8")
        y = np.full((2,), index, "int32")
        if self.preprocessor is None:
            return x, y
        x, y = self.preprocessor(x, y)
        return keras.ops.convert_to_numpy(x), keras.ops.convert_to_numpy(y)


def new_task():
    keras.utils.set_random_seed(0)
    converter = keras_hub.layers.ImageConverter(image_size=(8, 8), scale=1 / 255)
    backbone = keras_hub.models.ResNetBackbone(
        [64], [3], [64], [1], [1], "basic_block", image_shape=(8, 8, 3)
    )
    task = keras_hub.models.ImageClassifier(
        backbone=backbone, num_classes=NUM_CLASSES, preprocessor=CountingPreprocessor(converter)
    )
    seen = Seen()
    task.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True), metrics=[seen])
    return task, seen


def train(way, *, echo_factor=2.0, epochs=3):
    """Trains a task; returns what it saw, its weights and how often it was preprocessed."""
    task, seen = new_task()
    is_upstream = way == "keras.Model"
    source = Images(task.preprocessor if is_upstream else None)
    options = {"epochs": epochs, "shuffle": False, "verbose": 0}
    with EchoingPyDataset(source, echo_factor=echo_factor, shuffle_buffer=0, seed=4) as dataset:
        if is_upstream:
            keras.Model.fit(task, dataset, **options)
        elif way == "Grain":
            task.fit(dataset.as_grain(), steps_per_epoch=len(dataset), **options)
        else:
            task.fit(dataset.as_tf_dataset(), **options)
        stats = dataset.stats()
    return seen.all(), task.get_weights(), task.preprocessor.num_calls[0], stats


def test_both_ways_train_on_the_same_and_preprocess_at_their_places():
    labels, weights, num_calls, stats = train("keras.Model")
    assert len(labels) == 48
    assert labels[0::2] == labels[1::2]
    # Upstream: once for each fresh batch, and for up to ten that were read ahead.
    assert stats.fresh_batches == 24 <= num_calls <= 24 + 10
    for way in ("tf.data", "Grain"):
        its_labels, its_weights, its_num_calls, _ = train(way)
        assert its_labels == labels
        for ours, theirs in zip(weights, its_weights, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        # Behind the echo: once for each copy, and those that Keras looked at.
        assert 48 <= its_num_calls <= 48 + 12


def test_the_callback_finds_that_a_task_waits():
    class Slow(Images):
        def __getitem__(self, index):
            threading.Event().wait(0.2)
            return super().__getitem__(index)

    task, _ = new_task()
    with EchoingPyDataset(Slow(), steps_per_epoch=24) as dataset:
        callback = DataEchoCallback(dataset, max_factor=4.0, verbose=0)
        task.fit(dataset.as_tf_dataset(), shuffle=False, verbose=0, callbacks=[callback])
        assert dataset.echo_factor > 1
    assert [decision.step for decision in callback.decisions] == [10, 20]
    assert callback.decisions[1].breakdown.upstream_seconds == pytest.approx(0.2, rel=0.5)
