"""What uses are worth, in real fits, on the backend of this process (KERAS_BACKEND)."""

import math
import time
import warnings

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing import event_accumulator

import keras_echo
from keras_echo import DataEchoCallback, EchoingPyDataset
from keras_echo.adapting.unseen_loss import UnseenLoss
from keras_echo.adapting.worth import Worth
from keras_echo.dataset import probe_of

BACKEND = keras.backend.backend()
RATE = 2.0**-10


@pytest.fixture
def windows(monkeypatch):
    """Opens windows all the time; returns what they tell, in a list."""
    found = []
    add = Worth.add

    def spy(self, uses, decreases):
        found.append((list(uses), list(decreases)))
        add(self, uses, decreases)

    monkeypatch.setattr(Worth, "add", spy)
    monkeypatch.setattr("keras_echo.callback._CHECK_STEPS", 1)
    monkeypatch.setattr("keras_echo.adapting.worth_meter.BUDGET", 1e9)
    monkeypatch.setattr("keras_echo.adapting.worth_meter.URGENT_BUDGET", 1e9)
    return found


class Sliding(keras.Model):
    """Its one weight falls in each step by RATE times the number of the batch, and so does the
    loss, which is the weight, whatever the batch."""

    def __init__(self):
        super().__init__()
        self.weight = self.add_weight(shape=(), initializer="zeros")
        self.compile(keras.optimizers.SGD(RATE), lambda y, y_pred: y_pred)
        self(np.zeros((1, 1), "float32"))

    def call(self, inputs, training=False):
        return self.weight * inputs if training else self.weight + 0.0 * inputs


def measured(dataset, model, worth="report", **options):
    callback = DataEchoCallback(dataset, worth=worth, adapt=False, verbose=0)
    keras.Model.fit(model, dataset, verbose=0, callbacks=[callback], **options)
    return callback


@pytest.mark.parametrize("options", [{}, {"augment": lambda batch: batch}, {"placement": "device"}])
def test_a_decrease_belongs_to_the_use_of_its_step(windows, numbered, options):
    """In order at e = 3, step s is use s % 3 + 1 of batch s // 3, in every epoch."""
    dataset = EchoingPyDataset(
        numbered(200),
        echo_factor=3,
        shuffle=False,
        shuffle_buffer=0,
        steps_per_epoch=150,
        **options,
    )
    validation = [np.zeros((4, 1), "float32")] * 2
    callback = measured(dataset, Sliding(), epochs=3, validation_data=tuple(validation))
    windows = [window for window in windows if len(window[0]) > 2]
    assert len(windows) > 6
    for uses, decreases in windows:
        known = [(u, d) for u, d in zip(uses, decreases, strict=True) if math.isfinite(d)]
        assert len(known) > len(uses) / 2
        steps = [
            3 * round(d / RATE) + use - 1 if math.isfinite(d) else None
            for use, d in zip(uses, decreases, strict=True)
        ]
        firsts = {step - place for place, step in enumerate(steps) if step is not None}
        assert len(firsts) == 1
    assert callback._worth.problem is None
    assert sorted(callback._worth.worth.estimates()) == [1, 2, 3]


def test_uses_are_told_through_the_shuffle_buffer(windows, numbered):
    dataset = EchoingPyDataset(
        numbered(200), echo_factor=4, shuffle=False, shuffle_buffer=8, steps_per_epoch=150, seed=3
    )
    measured(dataset, Sliding(), epochs=2)
    seen = {}
    for uses, decreases in windows:
        for use, decrease in zip(uses, decreases, strict=True):
            if math.isfinite(decrease):
                seen.setdefault(round(decrease / RATE), []).append(use)
    assert len(seen) > 40
    for numbers in seen.values():
        assert len(set(numbers)) == len(numbers)
        assert set(numbers) <= {1, 2, 3, 4}
    assert any(len(numbers) == 4 for numbers in seen.values())


def test_no_step_has_seen_what_the_loss_is_taken_on(windows, numbered, recorder, monkeypatch):
    asked = []

    class Recording(UnseenLoss):
        def __call__(self, batch):
            asked.append((len(model.trained_on()), int(batch[0].max())))
            return super().__call__(batch)

    monkeypatch.setattr("keras_echo.callback.UnseenLoss", Recording)
    model = recorder()
    dataset = EchoingPyDataset(
        numbered(300), echo_factor=2, shuffle=False, shuffle_buffer=0, steps_per_epoch=150
    )
    callback = measured(dataset, model, epochs=2)
    assert callback._worth.problem is None
    assert len({number for _, number in asked}) > 20
    trained = model.trained_on()
    for num_steps, number in asked:
        assert number not in trained[:num_steps]
        assert number in trained or number > max(trained)  # it isn't lost, either


def digits(num=256):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num, 8)).astype("float32")
    return x, (x[:, :1] > 0).astype("float32")


def stateful():
    """Batch statistics, dropout, noise, metrics and an optimizer with a memory."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8,))
    x = keras.layers.GaussianNoise(0.1)(inputs)
    x = keras.layers.BatchNormalization()(keras.layers.Dense(8, kernel_regularizer="l2")(x))
    x = keras.layers.ActivityRegularization(l2=0.01)(keras.layers.Dropout(0.5)(x))
    model = keras.Model(
        inputs, {"a": keras.layers.Dense(1, name="a")(x), "b": keras.layers.Dense(2, name="b")(x)}
    )
    model.compile(
        "adam",
        {"a": "mse", "b": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        metrics={"b": "accuracy"},
        weighted_metrics={"a": "mae"},
    )
    return model


def test_measuring_changes_nothing_of_the_training(windows):
    """Weights, states of generators, moving averages, the optimizer, metrics: bit for bit."""
    x, y = digits()
    results = []
    for worth in (None, "report"):
        model = stateful()
        targets = {"a": y, "b": y[:, 0].astype("int32")}
        weights = {"a": np.linspace(0, 1, len(x), dtype="float32"), "b": np.ones(len(x), "float32")}
        dataset = EchoingPyDataset(
            (x, targets, weights), echo_factor=3, batch_size=8, steps_per_epoch=120, seed=0
        )
        callback = DataEchoCallback(dataset, worth=worth, adapt=False, verbose=0)
        history = model.fit(dataset, epochs=2, verbose=0, callbacks=[callback])
        logs = {name: values for name, values in history.history.items() if "echo" not in name}
        variables = [*model.variables, *model.optimizer.variables]
        results.append(([keras.ops.convert_to_numpy(v.value) for v in variables], logs))
        if worth:
            assert callback._worth.problem is None
            assert callback._worth.worth.estimates()
    (plain, plain_logs), (watched, watched_logs) = results
    for one, other in zip(plain, watched, strict=True):
        np.testing.assert_array_equal(one, other)
    assert plain_logs == watched_logs
    assert sum(len(uses) for uses, _ in windows) > 30


class OwnLoss(keras.Model):
    """Has a loss of its own, no `training` argument, and dicts for inputs."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs):
        return {"out": self.dense(inputs["x"])}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(sample_weight * (y["out"] - y_pred["out"]) ** 2)


def test_compute_loss_dicts_and_sample_weights(windows):
    x, y = digits()
    model = OwnLoss()
    model.compile("sgd")
    dataset = EchoingPyDataset(
        ({"x": x}, {"out": y}, np.ones_like(y)), echo_factor=2, batch_size=8, steps_per_epoch=100
    )
    callback = measured(dataset, model)
    assert callback._worth.problem is None
    assert sorted(callback._worth.worth.estimates()) == [1, 2]


def test_x_alone(windows):
    x, _ = digits()
    inputs = keras.Input((8,))
    model = keras.Sequential(
        [inputs, keras.layers.Dense(8), keras.layers.ActivityRegularization(1.0)]
    )
    model.compile("sgd")
    dataset = EchoingPyDataset((x,), echo_factor=2, batch_size=8, steps_per_epoch=100)
    callback = measured(dataset, model)
    assert callback._worth.problem is None
    assert sorted(callback._worth.worth.estimates()) == [1, 2]


class OwnStep(keras.Model):
    """Trains in a way of its own, and knows no loss."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs):
        return self.dense(inputs)

    def train_step(self, *args):
        if BACKEND == "jax":
            state, _ = args
            return {"nothing": keras.ops.zeros(())}, state
        return {"nothing": keras.ops.zeros(())}


def unmeasured(dataset, model, problem):
    """With "report", nobody is bothered: the report says why."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        callback = measured(dataset, model)
    assert callback._worth.worth.estimates() == {}
    assert "What a use is worth isn't known: " in callback.report()
    assert problem in callback.report()
    assert probe_of(dataset).unseen.num_ahead == 0
    following = DataEchoCallback(dataset, worth="follow", min_factor=2.0, verbose=0)
    with pytest.warns(RuntimeWarning, match=problem):
        model.fit(dataset, epochs=4, verbose=0, callbacks=[following])


def test_a_train_step_without_a_loss(windows):
    x, y = digits()
    model = OwnStep()
    model.compile("sgd")
    model(x[:1])
    unmeasured(
        EchoingPyDataset((x, y), echo_factor=2, batch_size=8, steps_per_epoch=100),
        model,
        "doesn't change in training" if BACKEND == "jax" else "No loss to compute",
    )


def test_examples_mix_uses(windows):
    x, y = digits()
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    dataset = EchoingPyDataset(
        (x, y), echo="example", echo_factor=2, batch_size=8, steps_per_epoch=100
    )
    unmeasured(dataset, model, "mixes the uses")


@pytest.mark.skipif(BACKEND == "torch", reason="steps_per_execution is 1 there")
def test_several_steps_in_one_call(windows):
    x, y = digits()
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=2)
    dataset = EchoingPyDataset((x, y), echo_factor=2, batch_size=8, steps_per_epoch=100)
    unmeasured(dataset, model, "steps_per_execution")


def test_accumulated_gradients(windows):
    x, y = digits()
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(gradient_accumulation_steps=2), "mse")
    dataset = EchoingPyDataset((x, y), echo_factor=2, batch_size=8, steps_per_epoch=100)
    unmeasured(dataset, model, "gradient_accumulation_steps")


def test_a_factor_alone():
    factor = keras_echo.EchoFactor(2.0)
    x, y = digits()
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callback = DataEchoCallback(factor, worth="follow", verbose=0)
    with pytest.warns(RuntimeWarning, match=r"keras_echo\.echo doesn't say"):
        model.fit(x, y, verbose=0, callbacks=[callback])


def test_a_wrong_worth():
    dataset = EchoingPyDataset(digits(), echo_factor=2)
    with pytest.raises(ValueError, match="worth must be 'report' or 'follow' or None"):
        DataEchoCallback(dataset, worth="yes")


def test_at_factor_1_nothing_is_measured(windows):
    x, y = digits()
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured(EchoingPyDataset((x, y), batch_size=8, steps_per_epoch=100), model)
    assert windows == []


def test_curves_and_report(windows, numbered, tmp_path):
    dataset = EchoingPyDataset(numbered(200), echo_factor=3, steps_per_epoch=150)
    callback = DataEchoCallback(dataset, tmp_path, worth="report", adapt=False, verbose=0)
    Sliding().fit(dataset, verbose=0, callbacks=[callback])
    events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    for use in (1, 2, 3):
        curve = events.Scalars(f"keras_echo/worth_{use}")
        # A window that the end of training cut off comes after the last point.
        known = callback._worth.worth.estimates()[use].mean
        assert curve[-1].value == pytest.approx(known, rel=0.1)
    assert "What a use of a batch is worth, over the first one: 1: 100%" in callback.report()


class Slow(keras.utils.PyDataset):
    """Batches of four digits, half of them with a label drawn at random; or always the same one."""

    def __init__(self, *, is_noisy):
        super().__init__()
        rng = np.random.default_rng(0)
        pixels, self.y = load_digits(return_X_y=True)
        self.x = (pixels / 16).astype("float32")
        is_wrong = rng.random(len(self.y)) < 0.5
        self.y[is_wrong] = rng.integers(0, 10, is_wrong.sum())
        if not is_noisy:
            self.x[:], self.y[:] = self.x[:1], self.y[:1]

    def __len__(self):
        return len(self.y) // 4

    def __getitem__(self, index):
        time.sleep(0.01)
        rows = slice(4 * index, 4 * index + 4)
        return self.x[rows], self.y[rows]


@pytest.mark.parametrize("is_noisy", [True, False])
def test_following_worth(windows, is_noisy):
    """A model that overfits at once is to be echoed little, one that can't is to be echoed."""
    keras.utils.set_random_seed(0)
    dataset = EchoingPyDataset(
        Slow(is_noisy=is_noisy), steps_per_epoch=1200, seed=0, shuffle_buffer=0
    )
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.2 if is_noisy else 1e-3), loss)
    callback = DataEchoCallback(dataset, worth="follow", max_factor=4, verbose=0)
    model.fit(dataset, verbose=0, callbacks=[callback])
    moves = [d for d in callback.decisions if "loss on unseen data" in d.reason]
    if is_noisy:
        assert dataset.echo_factor <= 2
        assert [move.factor for move in moves][:2] == [3.0, 2.0]
    else:
        assert moves == []
        assert dataset.echo_factor > 2


def test_what_is_shown_of_fresh_batches_is_a_copy_as_training_would_get_it(numbered):
    source = numbered(20)
    augment = lambda batch, rng: (batch[0] + rng.random(), batch[1])  # noqa: E731
    with EchoingPyDataset(source, echo_factor=2, shuffle=False, augment=augment) as dataset:
        dataset[0]
        unseen = probe_of(dataset).unseen
        assert unseen.fill(4, 60)
        shown = {position: make() for position, make in unseen.upcoming().items()}
        assert len(shown) >= 4
        assert sorted(shown) == list(shown)
        for (of_pass, ordinal), (x, _) in shown.items():
            assert of_pass == 0
            assert ordinal < x[0, 0] < ordinal + 1  # augmented, as its copies will be
            np.testing.assert_array_equal(unseen.upcoming()[0, ordinal]()[0], x)
            x[:] = -1  # it is a copy
        assert min(dataset[0][0].min() for _ in range(10)) >= 0
