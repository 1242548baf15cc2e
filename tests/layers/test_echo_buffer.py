"""`EchoBuffer` on the backend of this process: use counts, structures, fit(), graphs, files."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_echo.layers import EchoBuffer

BACKEND = keras.backend.backend()
NUM, CAPACITY = 4, 19  # fixed: every other shape costs a compilation


def batch_of(number, num=NUM):
    """Example i of the stream is full of i."""
    return np.arange(number * NUM, number * NUM + num, dtype="int32")


def numbers(batch):
    return ops.convert_to_numpy(batch).tolist()


def shares(factor, num):
    """How often each of the first `num` examples is used, by definition."""
    ends = [math.floor(number * Fraction(str(factor))) for number in range(num + 1)]
    return [end - begin for begin, end in itertools.pairwise(ends)]


@settings(max_examples=40)
@given(
    factor=st.sampled_from([1.0, 1.3, 2.0, 2.5, 4.0]),
    actions=st.lists(st.sampled_from(["store", "draw", "draw", "draw less"]), max_size=60),
    seed=st.integers(0, 2**31 - 1),
)
def test_no_use_is_lost_or_made_up(factor, actions, seed):
    buffer = EchoBuffer(factor, CAPACITY, seed=seed)
    owed = shares(factor, NUM * (len(actions) + 1))
    left = {}  # of all examples stored
    for action in ["store", *actions]:
        has_room = CAPACITY - sum(uses > 0 for uses in left.values()) >= NUM
        if action == "store" and has_room:
            stored = batch_of(len(left) // NUM)
            buffer.store(stored)
            left |= {number: owed[number] for number in stored.tolist()}
        else:
            size = NUM if action == "draw" else 2
            in_use = {number for number, uses in left.items() if uses > 0}
            drawn = numbers(buffer.draw(size))
            assert len(set(drawn)) == size
            assert set(drawn) <= set(left)
            spent = set(drawn) - in_use
            assert not spent or in_use < set(drawn)  # spent ones only if there are too few others
            for number in in_use & set(drawn):
                left[number] -= 1
        assert buffer.num_uses_left == sum(left.values())


@settings(max_examples=30)
@given(
    factor=st.sampled_from([1, 2, 3, 4]) | st.sampled_from([1.5, 4 / 3, 2.5]),
    num_ahead=st.integers(0, (CAPACITY - NUM) // NUM),
    seed=st.integers(0, 2**31 - 1),
)
def test_over_a_stream_each_example_is_used_e_times_or_still_held(factor, num_ahead, seed):
    if not isinstance(factor, int):
        num_ahead = CAPACITY // 2 // NUM  # as the docstring says
    buffer = EchoBuffer(factor, CAPACITY, seed=seed)
    counts, credit, num_stored = Counter(), Fraction(0), 0
    for number in range(num_ahead + 15):
        buffer.store(batch_of(number))
        num_stored += NUM
        if number >= num_ahead:
            credit += Fraction(factor).limit_denominator(10)
            while credit >= 1:
                counts.update(numbers(buffer.draw()))
                credit -= 1
    owed = shares(round(factor, 4), num_stored)
    assert all(counts[number] <= owed[number] for number in range(num_stored))
    assert counts.total() + buffer.num_uses_left == sum(owed)  # so nothing was overwritten
    held = [number for number in range(num_stored) if counts[number] < owed[number]]
    assert len(held) <= CAPACITY


def test_copies_are_spread():
    buffer = EchoBuffer(4, 64, seed=0)
    for number in range(8):
        buffer.store(batch_of(number))
    again = total = 0
    previous = set()
    for number in range(8, 60):
        buffer.store(batch_of(number))
        for _ in range(4):
            drawn = set(numbers(buffer.draw()))
            again += len(drawn & previous)
            total += NUM
            previous = drawn
    assert again < 0.2 * total  # without the examples stored ahead, three of four


def test_a_full_buffer_gives_up_the_examples_with_the_fewest_uses_left():
    buffer = EchoBuffer(3, 8, seed=0)
    buffer.store(batch_of(0))
    buffer.draw()
    buffer.store(batch_of(1))  # the buffer is full: 0 to 3 have two uses left, 4 to 7 three
    buffer.store(batch_of(2))
    assert buffer.num_uses_left == 8 * 3
    assert set(numbers(buffer.draw(8))) == set(range(4, 12))


def test_what_is_left_is_served_with_spent_examples_beside_it():
    buffer = EchoBuffer(1, 8, seed=0)
    buffer.store(batch_of(0, num=3))
    assert sorted(numbers(buffer.draw(2)) + numbers(buffer.draw(1))) == [0, 1, 2]
    assert buffer.num_uses_left == 0
    assert set(numbers(buffer.draw(5))) == {0, 1, 2}  # fewer than asked for: repeated
    assert buffer.num_uses_left == 0


def test_same_seed_same_draws():
    def drawn(seed):
        buffer = EchoBuffer(2, CAPACITY, seed=seed)
        for number in range(3):
            buffer.store(batch_of(number))
        return [numbers(buffer.draw()) for _ in range(5)]

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


BATCHES = {
    "array": np.ones((4, 3), "float32"),
    "tuple": (np.ones((4, 2, 2, 3), "uint8"), np.ones(4, "int64")),
    "list": [np.ones((4, 1), "float16"), np.ones((4, 5), bool)],
    "dict": {"b": np.ones((4, 2), "float64"), "a": {"boxes": np.ones((4, 3, 4), "float32")}},
    "None": ({"x": np.ones((4, 2), "int8"), "none": None}, np.ones(4, "float32"), None),
}


@pytest.mark.parametrize("name", BATCHES)
def test_structure_shapes_and_dtypes_are_kept(name):
    batch = BATCHES[name]
    buffer = EchoBuffer(2, 6, seed=0, dtype="mixed_bfloat16")
    returned = [buffer(batch, training=True), buffer(), buffer.draw(), buffer(batch)]
    if name != "None":  # Keras has no symbolic None
        returned.append(EchoBuffer(2, 6)(keras.tree.map_structure(symbol, batch)))
    for drawn in returned:
        keras.tree.assert_same_structure(drawn, batch)
        leaves = zip(keras.tree.flatten(drawn), keras.tree.flatten(batch), strict=True)
        for got, leaf in leaves:
            if leaf is None:
                assert got is None
                continue
            assert tuple(got.shape) == leaf.shape
            wanted = ops.convert_to_tensor(leaf).dtype  # JAX has 32 bits
            assert got.dtype == keras.backend.standardize_dtype(wanted) or got.dtype == wanted
            if not isinstance(got, keras.KerasTensor):
                assert bool(ops.all(ops.cast(got, "bool")))  # no empty slot


def symbol(leaf):
    if leaf is None:
        return None
    return keras.KerasTensor(leaf.shape, ops.convert_to_tensor(leaf).dtype)


def test_training_false_is_the_identity():
    buffer = EchoBuffer(2, 8)
    batch = np.ones((4, 2), "float32")
    for returned in (buffer(batch), buffer(batch, training=False)):
        np.testing.assert_array_equal(ops.convert_to_numpy(returned), batch)
    assert buffer.num_uses_left == 0


class Trained(keras.layers.Layer):
    """A linear model with its loss, which sees only what the buffer returns."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.buffer = EchoBuffer(2, 16, seed=0)
        self.dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")

    def build(self, input_shape):
        self.dense.build(input_shape["x"])

    def call(self, inputs, training=False):
        batch = self.buffer(inputs, training=training)
        predicted = self.dense(batch["x"])
        self.add_loss(ops.mean(ops.square(predicted - batch["y"])))
        return predicted


@pytest.mark.parametrize("jit_compile", [True, False])
def test_in_fit(jit_compile):
    if BACKEND == "torch" and jit_compile:
        pytest.skip("torch.compile warns of its own code, and warnings are errors here")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(70, 2)).astype("float32")  # the last batch has 6
    y = x @ np.array([[2.0], [-1.0]], "float32")
    inputs = {"x": keras.Input((2,), name="x"), "y": keras.Input((1,), name="y")}
    trained = Trained()
    model = keras.Model(inputs, trained(inputs))
    model.compile(keras.optimizers.SGD(0.1), jit_compile=jit_compile)
    model.fit({"x": x, "y": y}, batch_size=8, epochs=20, verbose=0)
    assert 0 < trained.buffer.num_uses_left <= 32
    # Examples and labels stayed together; and predictions are of the batch itself.
    np.testing.assert_allclose(model.predict({"x": x, "y": y}, verbose=0), y, atol=0.01)


def compiled(buffer):
    """`step(batch)` and `step()` as compiled functions of the backend."""
    if BACKEND == "jax":
        import jax

        store = jax.jit(lambda state, batch: buffer.stateless_call([], state, batch, training=True))
        draw = jax.jit(lambda state: buffer.stateless_call([], state))

        def step(*batch):
            state = [variable.value for variable in buffer.non_trainable_variables]
            drawn, state = (store if batch else draw)(state, *batch)
            for variable, value in zip(buffer.non_trainable_variables, state, strict=True):
                variable.assign(value)
            return drawn

        return [step]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def steps(jit_compile):
            store = tf.function(
                lambda batch: buffer(batch, training=True),
                jit_compile=jit_compile,
                input_signature=[tf.TensorSpec([None], "int32")],
            )
            draw = tf.function(lambda: buffer.draw(NUM), jit_compile=jit_compile)
            return lambda *batch: store(batch[0]) if batch else draw()

        return [steps(False), steps(True)]
    return [lambda *batch: buffer(*batch, training=True)]


def test_compiled_steps_of_a_loop_of_ones_own():
    for number, _ in enumerate(compiled(EchoBuffer(3, 32))):
        buffer = EchoBuffer(3, 32, seed=1)
        for ahead in range(4):
            buffer.store(batch_of(ahead))
        step = compiled(buffer)[number]
        counts = Counter()
        for fresh in range(4, 10):
            counts.update(numbers(step(batch_of(fresh))))
            for _ in range(2):
                counts.update(numbers(step()))
        assert set(counts.values()) <= {1, 2, 3}
        assert counts.total() + buffer.num_uses_left == 10 * NUM * 3


def test_a_saved_model_goes_on_where_it_stopped(tmp_path):
    inputs = {"x": keras.Input((1,), name="x"), "y": keras.Input((), dtype="int32", name="y")}
    model = keras.Model(inputs, EchoBuffer(2.5, 16, seed=7)(inputs))
    batch = {"x": np.arange(6, dtype="float32")[:, None], "y": np.arange(6, dtype="int32")}
    model(batch, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    config = loaded.layers[-1].get_config()
    assert (config["echo_factor"], config["capacity"], config["seed"]) == (2.5, 16, 7)
    for _ in range(3):
        drawn, again = (each.layers[-1].draw(6) for each in (model, loaded))
        for name in batch:
            np.testing.assert_array_equal(
                ops.convert_to_numpy(drawn[name]), ops.convert_to_numpy(again[name])
            )


def test_built_from_shapes_alone():
    buffer = EchoBuffer(1, 8)
    buffer.build((4, 2))
    buffer.store(np.ones((4, 2), "float32"))
    assert buffer.draw().shape[0] == 4


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((0.5, 8), ValueError, "echo_factor must be finite and at least 1"),
        ((2, 0), ValueError, "capacity must be at least 1"),
        ((2, 8.0), TypeError, "capacity must be an integer"),
        ((2, 8, -1), ValueError, "seed must be at least 0"),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        EchoBuffer(*arguments)


@pytest.mark.parametrize(
    "batch",
    [
        np.ones((4, 3), "float32"),
        np.ones((4, 2), "int32"),
        (np.ones((4, 2), "float32"),),
        {"x": np.ones((4, 2), "float32")},
    ],
)
def test_a_batch_of_another_kind_is_refused(batch):
    buffer = EchoBuffer(2, 8)
    buffer.store(np.ones((4, 2), "float32"))
    with pytest.raises(ValueError, match="must be like the first one but for the batch size"):
        buffer.store(batch)


def test_other_mistakes():
    with pytest.raises(ValueError, match="must have seen a batch before it is drawn from"):
        EchoBuffer(2, 8).draw()
    with pytest.raises(ValueError, match="capacity must be at least the number of examples"):
        EchoBuffer(2, 8).store(np.ones((9, 2), "float32"))
    with pytest.raises(ValueError, match="consist of tensors with examples along the first axis"):
        EchoBuffer(2, 8).store(np.float32(1))
    unsized = EchoBuffer(2, 8)
    unsized(keras.KerasTensor((None, 2)))
    with pytest.raises(ValueError, match="batch_size must be given for a layer"):
        unsized.draw()
    with pytest.raises(ValueError, match="capacity must be at least the number of examples"):
        unsized.draw(9)
