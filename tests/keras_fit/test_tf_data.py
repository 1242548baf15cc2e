import math
from collections import Counter

import keras
import pytest

from keras_echo import EchoFactor, echo

if keras.backend.backend() != "tensorflow":
    pytest.skip("tf.data needs TensorFlow", allow_module_level=True)

import tensorflow as tf


def served(dataset):
    return [int(element) for element in dataset.as_numpy_iterator()]


@pytest.mark.parametrize("factor", [1.0, 1.1, 2.0, 2.5, 7.9])
def test_uses_are_exact(factor):
    counts = Counter(served(tf.data.Dataset.range(100).apply(echo(factor))))
    assert set(counts) == set(range(100))
    assert set(counts.values()) <= {math.floor(factor), math.ceil(factor)}
    assert counts.total() == math.floor(100 * factor)


def test_structures_are_kept():
    source = tf.data.Dataset.from_tensor_slices(({"a": [1, 2]}, [3, 4]))
    echoed = source.apply(echo(2))
    assert echoed.element_spec == source.element_spec
    assert [int(x["a"]) for x, _ in echoed] == [1, 1, 2, 2]


def test_a_shared_factor_can_change():
    factor = EchoFactor(1.0)
    elements = tf.data.Dataset.range(1000).apply(echo(factor)).as_numpy_iterator()
    assert [int(next(elements)) for _ in range(3)] == [0, 1, 2]
    factor.value = 4.0
    counts = Counter(int(element) for element in elements)
    assert counts[900] == 4


def test_the_buffer_shuffles():
    order = served(tf.data.Dataset.range(100).apply(echo(2, shuffle_buffer=50, seed=1)))
    assert sorted(order) == sorted([*range(100), *range(100)])
    assert order != sorted(order)


def test_fit_takes_it():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data = tf.data.Dataset.from_tensor_slices((tf.ones((8, 1)), tf.ones((8, 1)))).batch(4)
    model.fit(
        # The echo hides the length, and an epoch is a number of steps.
        data.repeat().apply(echo(2.5)),
        steps_per_epoch=2,
        epochs=2,
        shuffle=False,
        verbose=0,
    )
