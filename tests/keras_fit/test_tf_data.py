import math
import time
from collections import Counter

import keras
import numpy as np
import pytest

from keras_echo import DataEchoCallback, EchoFactor, echo
from keras_echo.tf_data import NUM_AHEAD, _as_reads

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


def slow(seconds):
    def batches():
        while True:
            time.sleep(seconds)
            yield np.zeros((8, 4), "float32"), np.zeros((8, 1), "float32")

    signature = (tf.TensorSpec((8, 4)), tf.TensorSpec((8, 1)))
    return tf.data.Dataset.from_generator(batches, output_signature=signature)


class Busy(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(0.01)


@pytest.mark.parametrize("is_by_example", [False, True])
def test_the_factor_follows_what_the_echo_is_fed(tmp_path, is_by_example):
    """Up, though the trace shows no reads, and down again: what waits and what rests is counted."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    for seconds, before in ((0.04, 1.0), (0.002, 4.0)):
        factor, data = EchoFactor(before), slow(seconds)
        if is_by_example:
            data = data.unbatch().apply(echo(factor)).batch(8)
        else:
            data = data.apply(echo(factor))
        callback = DataEchoCallback(factor, tmp_path, verbose=0)
        model.fit(data, steps_per_epoch=200, shuffle=False, verbose=0, callbacks=[Busy(), callback])
        found = callback.decisions[-1].breakdown
        assert seconds / 2 < found.upstream_seconds < 3 * seconds
        if before == 1.0:
            assert 2.0 < factor.value < 6.0
        else:
            assert factor.value < 2.0
            assert found.held_fraction > 0.5


def test_when_elements_came_and_were_taken_tells_how_long_they_took():
    """An element a second for each read, which waits for room while nobody takes any."""
    done, taken, held = [1.0, 2.0], [1.0, 2.0], 0.0
    for number in range(2, 20):
        room = taken[number - NUM_AHEAD]
        begun = max(done[-1], room)
        held += max(0.0, room - done[-1])
        done.append(begun + 1.0)
        taken.append(max(done[-1], taken[-1] + (3.0 if number > 10 else 0.5)))
    numbers = range(20)
    reads = _as_reads([*zip(done, taken, numbers, strict=True)])
    assert [read.seconds for read in reads] == pytest.approx([1.0] * 18)
    assert reads[8].held_seconds == 0.0
    assert held > 5
    assert reads[-1].held_seconds == pytest.approx(held)
    # Another iteration: nobody knows when its first elements were begun.
    again = _as_reads([*zip(done, taken, [*range(10), *range(10)], strict=True)])
    assert [read.is_first for read in again].index(True) == 8
    assert sum(read.is_first for read in again) == 2
