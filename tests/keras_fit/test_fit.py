"""What fit() trains on, on the backend of this process (KERAS_BACKEND)."""

import itertools
import json
import math
import time
from collections import Counter
from fractions import Fraction

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keras_echo import EchoFactor, EchoingPyDataset
from keras_echo.serving.keras_calls import current_call


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
    with EchoingPyDataset(
        numbered(length), echo_factor=factor, shuffle=False, shuffle_buffer=0
    ) as dataset:
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
    # The last batch is shorter.
    with EchoingPyDataset(Source(), echo="example", shuffle=False, workers=3) as dataset:
        assert weights_after_training(dataset) == plain


@pytest.mark.parametrize("factor", [1.0, 2.0, 2.5])
def test_every_batch_of_every_pass_is_used_alike(recorder, numbered, factor):
    model = recorder()
    with EchoingPyDataset(numbered(6), echo_factor=factor, seed=5, shuffle_buffer=0) as dataset:
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
    with EchoingPyDataset(
        numbered(7), echo_factor=2, steps_per_epoch=5, shuffle=False, shuffle_buffer=0
    ) as dataset:
        history = model.fit(
            dataset, epochs=4, validation_data=numbered(2), validation_freq=2, verbose=0
        )
    assert len(dataset) == 5
    assert model.trained_on() == list(repeated(7, 2, 20))
    assert len(history.history["val_loss"]) == 2


def test_fit_with_a_number_of_steps_of_its_own(recorder, numbered):
    model = recorder()
    with EchoingPyDataset(numbered(8), echo_factor=2, shuffle=False, shuffle_buffer=0) as dataset:
        model.fit(dataset, epochs=4, steps_per_epoch=2, verbose=0)
    assert model.trained_on() == list(repeated(8, 2, 8))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras has no such option there")
def test_several_steps_per_execution(recorder, numbered):
    model = recorder()
    model.compile("sgd", "mse", steps_per_execution=3)
    with EchoingPyDataset(numbered(6), echo_factor=2, shuffle=False, shuffle_buffer=0) as dataset:
        model.fit(dataset, epochs=2, verbose=0)
    assert model.trained_on() == list(repeated(6, 2, 12))


WARNING = r"\(\) reads the training stream of an EchoingPyDataset: .* Pass the source itself"


def test_evaluate_and_predict_take_it_too_with_one_warning(numbered):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.ones((1, 1), "float32")])
    model.compile("sgd", "mse")
    with EchoingPyDataset(
        numbered(3, batch_size=1), echo_factor=2, shuffle=False, shuffle_buffer=0
    ) as dataset:
        with pytest.warns(RuntimeWarning, match="^predict" + WARNING):
            assert model.predict(dataset, verbose=0)[:, 0].tolist() == [0, 0, 1]
        assert model.evaluate(dataset, verbose=0) == pytest.approx((1 + 4 + 4) / 3)
    with (
        EchoingPyDataset(numbered(3, batch_size=1)) as dataset,
        pytest.warns(RuntimeWarning, match="^evaluate" + WARNING),
    ):
        model.evaluate(dataset, verbose=0)


def test_validation_with_the_training_stream_warns_once(recorder, numbered):
    model = recorder()
    with (
        EchoingPyDataset(numbered(3), shuffle=False) as dataset,
        EchoingPyDataset(numbered(2)) as validation,
    ):
        with pytest.warns(RuntimeWarning, match="^evaluate" + WARNING):
            model.fit(dataset, validation_data=validation, verbose=0)
        model.fit(dataset, epochs=2, validation_data=validation, verbose=0)
    assert model.trained_on() == [0, 1, 2] * 3


def test_an_echoing_dataset_of_an_echoing_dataset_is_refused(numbered):
    with (
        EchoingPyDataset(numbered(3)) as dataset,
        pytest.raises(TypeError, match=r"^source must be what is to be echoed, not another"),
    ):
        EchoingPyDataset(dataset)


@pytest.mark.parametrize("is_built", [True, False], ids=["built", "unbuilt"])
def test_keras_says_on_whose_behalf_it_calls(numbered, is_built):
    """By these names alone, peeks are told from training: a change of Keras's is noticed here."""

    class Asking(type(numbered(1))):
        def __getitem__(self, index):
            self.calls.append(current_call())
            return super().__getitem__(index)

        def on_epoch_begin(self):
            self.calls.append(current_call())

        on_epoch_end = on_epoch_begin

    def asked(method):
        dataset = Asking(3)
        dataset.calls = []
        model = keras.Sequential([keras.layers.Dense(1)])
        if is_built:
            model.build((None, 1))
        model.compile("sgd", "mse")
        getattr(model, method)(dataset, verbose=0)
        return [call for call in dataset.calls if call is not None]

    for method in ("fit", "evaluate", "predict"):
        calls = asked(method)
        assert {call.method for call in calls} == {method}
        begun = [call.has_begun for call in calls]
        assert begun == sorted(begun)
        assert begun[-1]  # the end of the epoch
        if method != "predict":
            assert not begun[0]  # the peek, or the end of none
    assert current_call() is None


@settings(max_examples=20)
@given(
    length=st.integers(1, 7),
    factor=st.sampled_from([1.0, 2.5]),
    echo=st.sampled_from(["batch", "example"]),
    data=st.data(),
)
def test_a_loop_of_the_users_own_uses_every_batch_once_in_any_order(length, factor, echo, data):
    x = np.arange(length * 2, dtype="float32").reshape(-1, 1)

    def dataset():
        return EchoingPyDataset(
            (x, x), batch_size=2, echo_factor=factor, echo=echo, seed=1, steps_per_epoch=length
        )

    with dataset() as plain, dataset() as looped:
        expected = [
            keras.ops.convert_to_numpy(plain[7 + step][0]).tolist() for step in range(4 * length)
        ]
        served = []
        for _ in range(4):
            is_told = data.draw(st.booleans())
            if is_told:
                looped.on_epoch_begin()
            for index in data.draw(st.permutations(range(length))):
                served.append(keras.ops.convert_to_numpy(looped[index][0]).tolist())
            if is_told and data.draw(st.booleans()):
                looped.on_epoch_end()
    assert served == expected


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_own_loops_and_fits_take_turns(recorder, numbered, order, is_told):
    model, looped = recorder(is_built=False), []
    with EchoingPyDataset(numbered(30), steps_per_epoch=3, shuffle=False) as dataset:
        for _ in range(3):
            if is_told:
                dataset.on_epoch_begin()
            looped += [int(keras.ops.convert_to_numpy(dataset[index][0]).max()) for index in order]
            if is_told:
                dataset.on_epoch_end()
            model.fit(dataset, verbose=0)
    assert looped == [0, 1, 2, 6, 7, 8, 12, 13, 14]
    assert model.trained_on() == [3, 4, 5, 9, 10, 11, 15, 16, 17]


class _FailOnce(keras.callbacks.Callback):
    """Ends the first epoch with an exception, so that nobody is told of its end."""

    has_failed = False

    def on_train_batch_end(self, batch, logs=None):
        if not self.has_failed and batch == 5:
            self.has_failed = True
            raise KeyboardInterrupt


def _settled(count):
    """A count that tf.data, which fetches ahead, no longer changes."""
    before, since = count(), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.01)
        if (now := count()) != before:
            before, since = now, time.monotonic()
    return before


def test_peeks_after_an_interrupted_epoch_lose_nothing(recorder, numbered):
    model = recorder()
    with EchoingPyDataset(numbered(100), steps_per_epoch=8, shuffle=False) as dataset:
        with pytest.raises(KeyboardInterrupt):
            model.fit(dataset, callbacks=[_FailOnce()], verbose=0)
        num_served = _settled(lambda: dataset.stats().steps)
        other = recorder()
        other.fit(dataset, verbose=0)
    assert other.trained_on() == [*range(num_served, num_served + 8)]


class _Unbuildable(keras.Model):
    def call(self, inputs):
        raise ZeroDivisionError


def test_a_peek_that_failed_is_over(numbered):
    """The first `fit()` of a model with a mistake; then a loop of the user's own finds it."""
    model = _Unbuildable()
    model.compile("sgd", "mse")
    with EchoingPyDataset(numbered(6), shuffle=False) as dataset:
        for _ in range(2):
            with pytest.raises((RuntimeError, ValueError, ZeroDivisionError)):  # as Keras wraps it
                model.fit(dataset, verbose=0)
        looped = [
            int(keras.ops.convert_to_numpy(dataset[index][0]).max()) for index in (5, 4, 3, 2, 1, 0)
        ]
        assert dataset.stats().steps == 6
        dataset.on_epoch_begin()
        looped += [int(keras.ops.convert_to_numpy(dataset[index][0]).max()) for index in range(6)]
    assert looped == [*range(6)] * 2


@settings(max_examples=15)
@given(
    widths=st.lists(st.integers(2, 9), min_size=2, max_size=6, unique=True),
    factors=st.lists(st.sampled_from([1.0, 2.0, 2.5, 6.0]), min_size=1, max_size=3),
    augments=st.booleans(),
    shuffle=st.booleans(),
    shuffle_buffer=st.sampled_from([0, 2, "auto"]),
    is_sequential=st.booleans(),
)
@example(  # the first two batches of the second fit() are of one width
    widths=[2, 3, 4, 5],
    factors=[1.0, 1.0],
    augments=False,
    shuffle=True,
    shuffle_buffer=2,
    is_sequential=True,
)
def test_dimensions_may_vary_in_every_fit_whatever_the_factor(
    widths, factors, augments, shuffle, shuffle_buffer, is_sequential
):
    class Varying(keras.utils.PyDataset):
        def __len__(self):
            return len(widths)

        def __getitem__(self, index):
            x = np.full((4, widths[index], 3), index, "float32")
            return x, x[:, 0, :1]

    source = Varying()

    def batches():
        return (source[index] for index in range(len(widths)))

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.layers.Dense(2), keras.layers.GlobalMaxPooling1D(), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    with EchoingPyDataset(
        batches if is_sequential else source,
        shuffle=shuffle,
        shuffle_buffer=shuffle_buffer,
        steps_per_epoch=len(widths),
        augment=(lambda batch: batch) if augments else None,
        seed=0,
    ) as dataset:
        for num_fits, factor in enumerate(factors, 1):
            dataset.echo_factor = factor
            model.fit(dataset, verbose=0)
            assert dataset.stats().steps == num_fits * len(widths)


def test_class_weights_pass_through(recorder, numbered):
    with EchoingPyDataset(numbered(3), echo_factor=2) as dataset:
        recorder().fit(dataset, class_weight={0: 2.0}, verbose=0)


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 9),
    factor=st.floats(1, 5),
    shuffle=st.booleans(),
    shuffle_buffer=st.sampled_from([0, 1, 5, "auto"]),
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
        return [keras.ops.convert_to_numpy(dataset[0][0]).tolist() for _ in range(num)]

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
    with EchoingPyDataset(
        numbered(6), echo_factor=factor, shuffle=False, shuffle_buffer=0
    ) as dataset:
        history = model.fit(dataset, epochs=4, callbacks=[Raise()], verbose=0)
        assert dataset.echo_factor == 4.0
    assert len(history.history["loss"]) == 4
    trained_on = model.trained_on()
    assert len(trained_on) == 24
    order = [number for number, _ in itertools.groupby(trained_on)]
    assert order == [number % 6 for number in range(len(order))]
    assert trained_on[12:18] == [trained_on[12]] * 2 + [trained_on[14]] * 2 + [trained_on[16]] * 2
