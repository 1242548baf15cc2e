"""What fit() trains on, on the backend of this process (KERAS_BACKEND)."""

import itertools
import json
import math
from collections import Counter
from fractions import Fraction

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_echo import EchoFactor, EchoingPyDataset


def repeated(length, factor, num_steps, start=0):
    """The definition: batches in order, each used until its share of n * e is reached."""
    for fresh in itertools.count():
        before, after = (
            math.floor(fresh * Fraction(factor)),
            math.floor((fresh + 1) * Fraction(factor)),
        )
        for _ in range(after - before):
            if start == num_steps:
                return
            start += 1
            yield fresh % length


@pytest.mark.parametrize("is_built", [True, False], ids=["built", "unbuilt"])
@pytest.mark.parametrize("factor", [1.0, 2.0, 2.5, 4 / 3])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_epochs_go_on_where_they_stopped(recorder, numbered, length, factor, is_built):
    model = recorder(is_built=is_built)
    with EchoingPyDataset(numbered(length), echo_factor=factor, shuffle=False) as dataset:
        model.fit(dataset, epochs=3, verbose=0)
        model.fit(dataset, epochs=2, verbose=0)  # and so do calls of fit()
        stats = dataset.stats()
    trained_on = model.trained_on()
    assert trained_on == list(repeated(length, factor, 5 * length))
    assert stats.steps == 5 * length
    assert stats.fresh_batches == math.ceil(5 * length / Fraction(factor))


def test_at_factor_one_it_is_the_source_bit_for_bit(numbered):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)).astype("float32"), rng.normal(size=(50, 1)).astype("float32")

    class Source(keras.utils.PyDataset):
        def __len__(self):
            return 7

        def __getitem__(self, index):
            return x[index * 8 : index * 8 + 8], y[index * 8 : index * 8 + 8]

    def weights_after_training(dataset):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.01), "mse")
        model.fit(dataset, epochs=3, shuffle=False, verbose=0)
        return [weight.tobytes() for weight in model.get_weights()]

    plain = weights_after_training(Source())
    with EchoingPyDataset(Source(), shuffle=False, workers=3) as dataset:
        assert weights_after_training(dataset) == plain
    with EchoingPyDataset((x, y), shuffle=False, batch_size=8) as dataset:
        assert weights_after_training(dataset) == plain


@pytest.mark.parametrize("factor", [1.0, 2.0, 2.5])
def test_every_batch_of_every_pass_is_used_alike(recorder, numbered, factor):
    model = recorder()
    with EchoingPyDataset(numbered(6), echo_factor=factor, seed=5) as dataset:
        model.fit(dataset, epochs=10, verbose=0)
    trained_on = model.trained_on()
    fresh = [number for number, _ in itertools.groupby(trained_on)]
    counts = Counter(trained_on)
    assert max(counts.values()) - min(counts.values()) <= 2 * math.ceil(factor)
    if factor == 2.0:
        passes = [fresh[i : i + 6] for i in range(0, 24, 6)]
        assert all(sorted(one) == list(range(6)) for one in passes)
        assert len(set(map(tuple, passes))) > 1  # drawn anew in each pass


def test_steps_per_epoch_and_validation(recorder, numbered):
    model = recorder()
    with EchoingPyDataset(numbered(7), echo_factor=2, steps_per_epoch=5, shuffle=False) as dataset:
        history = model.fit(
            dataset, epochs=4, validation_data=numbered(2), validation_freq=2, verbose=0
        )
    assert len(dataset) == 5
    assert model.trained_on() == list(repeated(7, 2, 20))
    assert len(history.history["val_loss"]) == 2


def test_fit_with_a_number_of_steps_of_its_own(recorder, numbered):
    model = recorder()
    with EchoingPyDataset(numbered(8), echo_factor=2, shuffle=False) as dataset:
        model.fit(dataset, epochs=4, steps_per_epoch=2, verbose=0)
    assert model.trained_on() == list(repeated(8, 2, 8))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras has no such option there")
def test_several_steps_per_execution(recorder, numbered):
    model = recorder()
    model.compile("sgd", "mse", steps_per_execution=3)
    with EchoingPyDataset(numbered(6), echo_factor=2, shuffle=False) as dataset:
        model.fit(dataset, epochs=2, verbose=0)
    assert model.trained_on() == list(repeated(6, 2, 12))


def test_evaluate_and_predict_take_it_too(numbered):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.ones((1, 1), "float32")])
    model.compile("sgd", "mse")
    with EchoingPyDataset(numbered(3, batch_size=1), echo_factor=2, shuffle=False) as dataset:
        assert model.predict(dataset, verbose=0)[:, 0].tolist() == [0, 0, 1]
        assert model.evaluate(dataset, verbose=0) == pytest.approx((1 + 4 + 4) / 3)


def test_class_weights_pass_through(recorder, numbered):
    with EchoingPyDataset(numbered(3), echo_factor=2) as dataset:
        recorder().fit(dataset, class_weight={0: 2.0}, verbose=0)


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 9),
    factor=st.floats(1, 5),
    shuffle=st.booleans(),
    shuffle_buffer=st.sampled_from([0, 1, 5]),
    augments=st.booleans(),
    workers=st.integers(2, 4),
    seed=st.integers(0, 2**31),
    stop=st.integers(0, 20),
)
def test_same_seed_same_stream_whatever_the_workers_and_the_interruptions(
    length, factor, shuffle, shuffle_buffer, augments, workers, seed, stop
):
    x = np.arange(length * 2, dtype="float32").reshape(-1, 1)

    def noisy(batch, rng):
        return batch[0] + rng.random(), batch[1]

    def dataset(workers):
        return EchoingPyDataset(
            (x, x),
            batch_size=2,
            echo_factor=factor,
            shuffle=shuffle,
            shuffle_buffer=shuffle_buffer,
            augment=noisy if augments else None,
            workers=workers,
            seed=seed,
            steps_per_epoch=1,
        )

    def serve(dataset, num):
        return [np.asarray(dataset[0][0]).tolist() for _ in range(num)]

    with dataset(1) as one, dataset(workers) as many, dataset(1) as closed, dataset(1) as resumed:
        whole = serve(one, 30)
        assert serve(many, 30) == whole
        assert serve(closed, stop) == whole[:stop]
        state = json.loads(json.dumps(closed.state_dict()))
        closed.close()
        assert serve(closed, 30 - stop) == whole[stop:]
        resumed.echo_factor = 1.0
        resumed.load_state_dict(state)
        assert resumed.echo_factor == factor
        assert serve(resumed, 30 - stop) == whole[stop:]
        assert resumed.stats().steps == 30
        assert resumed.stats().fresh_batches == one.stats().fresh_batches


def test_a_changed_factor_changes_neither_length_nor_epochs(recorder, numbered):
    factor = EchoFactor(1.0)

    class Raise(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            factor.value = 1.0 + epoch

    model = recorder()
    with EchoingPyDataset(numbered(6), echo_factor=factor, shuffle=False) as dataset:
        history = model.fit(dataset, epochs=4, callbacks=[Raise()], verbose=0)
        assert dataset.echo_factor == 4.0
    assert len(history.history["loss"]) == 4
    trained_on = model.trained_on()
    assert len(trained_on) == 24
    order = [number for number, _ in itertools.groupby(trained_on)]
    assert order == [number % 6 for number in range(len(order))]
    assert trained_on[12:18] == [trained_on[12]] * 2 + [trained_on[14]] * 2 + [trained_on[16]] * 2
