"""as_tf_dataset() and as_grain() in real fits, on the backend of this process (KERAS_BACKEND)."""

import sys
import time

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_echo import DataEchoCallback, EchoingPyDataset

pytest.importorskip("grain")
tf = pytest.importorskip("tensorflow")
BACKEND = keras.backend.backend()
WAYS = ("tf.data", "Grain")


def fit(model, dataset, way, *, epochs=1, stream=None, **options):
    """model.fit() on the stream of the dataset."""
    if way == "PyDataset":
        return model.fit(dataset, epochs=epochs, verbose=0, **options)
    if way == "Grain":
        options["steps_per_epoch"] = len(dataset)
    data = stream or (dataset.as_tf_dataset() if way == "tf.data" else dataset.as_grain())
    return model.fit(data, epochs=epochs, shuffle=False, verbose=0, **options)


def firsts(batches, num):
    return [int(np.asarray(next(batches)[0]).max()) for _ in range(num)]


def read_ahead(dataset):
    """What KerasHub's tasks and many others put behind a tf.data pipeline."""
    return dataset.map(lambda *batch: batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(
        tf.data.AUTOTUNE
    )


@pytest.mark.parametrize(("factor", "is_built"), [(1.0, True), (2.5, False)])
@pytest.mark.parametrize("way", WAYS)
def test_it_is_the_stream_of_the_dataset(recorder, numbered, way, factor, is_built):
    def trained_on(ways):
        model = recorder(is_built=is_built)
        with EchoingPyDataset(numbered(7), echo_factor=factor, seed=3) as dataset:
            for each in ways:
                fit(model, dataset, each, epochs=2)
            return model.trained_on(), dataset.stats().steps

    # Keras reads Grain through tf.data on TensorFlow, one batch ahead, and drops that one.
    num_fits = 1 if (BACKEND, way) == ("tensorflow", "Grain") else 3
    numbers, num_steps = trained_on([way, "PyDataset", way][:num_fits])
    assert numbers == trained_on(["PyDataset"] * num_fits)[0]
    assert num_steps == 14 * num_fits or num_fits == 1


def test_reading_ahead_loses_nothing_at_the_ends_of_epochs(recorder, numbered):
    with EchoingPyDataset(numbered(30), echo_factor=2, shuffle=False, shuffle_buffer=0) as dataset:
        stream = read_ahead(dataset.as_tf_dataset())
        model = recorder(is_built=False)
        fit(model, dataset, "tf.data", epochs=3, stream=stream)
        other = recorder(is_built=False)  # which has Keras look again
        fit(other, dataset, "tf.data", epochs=2, stream=stream)
        assert dataset.stats().steps == 150
    trained_on = [*model.trained_on(), *other.trained_on()]
    assert trained_on == [step // 2 % 30 for step in range(150)]


@settings(max_examples=8, deadline=None)
@given(
    factor=st.floats(1, 5),
    length=st.integers(14, 20),
    looks=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    reads_ahead=st.booleans(),
    shuffle_buffer=st.sampled_from([0, 3, "auto"]),
)
def test_the_same_stream_for_any_factor_and_any_looks(
    factor, length, looks, reads_ahead, shuffle_buffer
):
    x = np.arange(2 * length, dtype="float32").reshape(-1, 1)

    def dataset():
        return EchoingPyDataset(
            (x, x), batch_size=2, echo_factor=factor, shuffle_buffer=shuffle_buffer, seed=1
        )

    with dataset() as plain, dataset() as wrapped:
        expected = [np.asarray(plain[0][0]).tolist() for _ in range(length * len(looks))]
        stream = wrapped.as_tf_dataset()
        assert stream.cardinality() == length
        stream = read_ahead(stream) if reads_ahead else stream
        served = []
        for num_looked_at in looks:
            for _ in stream.take(num_looked_at):
                pass
            served += [batch[0].numpy().tolist() for batch in stream]
    assert served == expected


@pytest.mark.parametrize("way", WAYS)
def test_the_factor_can_be_changed_at_any_time(numbered, way):
    with EchoingPyDataset(numbered(30), shuffle=False, shuffle_buffer=0) as dataset:
        stream = dataset.as_tf_dataset() if way == "tf.data" else dataset.as_grain()
        batches = iter(stream)
        assert firsts(batches, 3) == [0, 1, 2]
        dataset.echo_factor = 3.0
        numbers = firsts(batches, 12)
    assert numbers[-6:] == sorted(numbers[-6:])
    assert max(numbers.count(number) for number in numbers) == 3


BATCHES = {
    "x": lambda x: (x,),
    "x, y": lambda x: (x, x[:, 0].astype("int64")),
    "x, y, weights": lambda x: (x, x, np.ones(len(x))),
    "a list": lambda x: [x, [x, x]],
    "an array": lambda x: x,
    "a dict": lambda x: {"image": x.astype("uint8"), "text": np.array(["ä", "bc", "d"][: len(x)])},
    "None": lambda x: ({"a": x, "b": None}, None),
    "bytes": lambda x: (np.array([b"\xff", b"b", b"c"][: len(x)], object), x),
}


@pytest.mark.parametrize("form", BATCHES)
def test_forms_of_batches(form):
    class Source(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            # The last one is shorter.
            return BATCHES[form](np.full((3 - index, 4), index, "float32"))

    with EchoingPyDataset(Source(), shuffle=False) as dataset:
        stream = dataset.as_tf_dataset()
        specs = tf.nest.flatten(stream.element_spec)
        assert {spec.shape[0] for spec in specs if isinstance(spec, tf.TensorSpec)} == {None}
        served = list(stream)
    for index, batch in enumerate(served):
        expected = keras.tree.lists_to_tuples(BATCHES[form](np.full((3 - index, 4), index, "f")))
        keras.tree.assert_same_structure(batch, expected)
        for got, wanted in zip(
            keras.tree.flatten(batch), keras.tree.flatten(expected), strict=True
        ):
            if wanted is None:
                assert got is None
            elif wanted.dtype.kind in "UO":
                texts = [text.encode() if isinstance(text, str) else text for text in wanted]
                assert got.numpy().tolist() == texts
            else:
                assert got.dtype == wanted.dtype
                np.testing.assert_array_equal(got, wanted)


def test_other_dimensions_that_change_need_a_spec():
    class Ragged(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return (np.zeros((2, 3 + index), "float32"),)

    with EchoingPyDataset(Ragged(), shuffle=False) as dataset:
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"shape \(2, 4\) where"):
            list(dataset.as_tf_dataset())
        spec = (tf.TensorSpec((None, None), tf.float32),)
        assert len(list(dataset.as_tf_dataset(spec))) == 2


@pytest.mark.parametrize("leaf", [3.0, np.array([object()])], ids=["scalar", "object"])
def test_what_no_tensor_can_be_made_of_is_said(leaf):
    with (
        EchoingPyDataset(lambda: iter([(np.zeros((2, 1)), leaf)]), steps_per_epoch=1) as dataset,
        pytest.raises(ValueError, match="All of a batch must be arrays"),
    ):
        dataset.as_tf_dataset()


@pytest.mark.parametrize("way", WAYS)
def test_copies_are_not_changed_by_what_was_done_to_another(numbered, way):
    with EchoingPyDataset(numbered(9), echo_factor=3, shuffle=False, shuffle_buffer=0) as dataset:
        stream = dataset.as_tf_dataset() if way == "tf.data" else dataset.as_grain()
        batches, numbers = iter(stream), []
        for _ in range(6):
            x = np.asarray(next(batches)[0])
            numbers.append(int(x.max()))
            if x.flags.writeable:
                x += 100
    assert numbers == [0, 0, 0, 1, 1, 1]


class Failing(keras.utils.PyDataset):
    """Fails the first time that batch 3 is read."""

    has_failed = False

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 3 and not self.has_failed:
            self.has_failed = True
            raise OSError("disk gone")
        x = np.full((2, 1), index, "float32")
        return x, x


@pytest.mark.parametrize("way", WAYS)
def test_what_the_source_raises_arrives_with_the_index(recorder, way):
    note = "keras_echo was reading batch 3 of the source."
    dataset, model = EchoingPyDataset(Failing(), shuffle=False), recorder()
    with pytest.raises(Exception, match="disk gone") as caught:
        fit(model, dataset, way)
    if way == "tf.data" or BACKEND == "tensorflow":
        # tf.data turns every exception into one of its own.
        assert isinstance(caught.value, tf.errors.UnknownError)
        assert "OSError: disk gone" in str(caught.value)
        assert note in str(caught.value)
    else:
        assert type(caught.value) is OSError
        assert note in caught.value.__notes__
    model = recorder()
    fit(model, dataset, way)
    assert model.trained_on() == [3, 4, 5, 6, 7, 0, 1, 2]  # tried again, and nothing else


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 20:
            raise KeyboardInterrupt


@pytest.mark.parametrize("way", WAYS)
def test_after_ctrl_c_it_goes_on(recorder, numbered, way):
    dataset, model = EchoingPyDataset(numbered(40, workers=2), shuffle=False), recorder()
    stream = dataset.as_tf_dataset() if way == "tf.data" else dataset.as_grain()
    with pytest.raises(KeyboardInterrupt):
        fit(model, dataset, way, stream=stream, callbacks=[Interrupt()])
    dataset.close()
    other = recorder()
    fit(other, dataset, way, stream=stream)
    numbers = other.trained_on()
    assert 21 <= numbers[0] <= 30  # tf.data had read a few ahead
    assert numbers == [(numbers[0] + step) % 40 for step in range(40)]


def test_an_iterator_that_was_left_behind_takes_nothing_more(numbered):
    with EchoingPyDataset(numbered(9), shuffle=False) as dataset:
        old, new = iter(dataset.as_grain()), iter(dataset.as_grain())
        assert firsts(old, 4) == [0, 1, 2, 3]
        assert firsts(new, 2) == [4, 5]
        assert list(old) == []
        assert firsts(new, 2) == [6, 7]


def test_the_state_of_a_grain_iterator_is_that_of_the_dataset(numbered):
    with EchoingPyDataset(numbered(9), echo_factor=2, shuffle=False, shuffle_buffer=0) as dataset:
        batches = iter(dataset.as_grain().map(lambda batch: batch))
        assert firsts(batches, 5) == [0, 0, 1, 1, 2]
        state = batches.get_state()
        assert firsts(batches, 3) == [2, 3, 3]
        batches.set_state(state)
        assert firsts(batches, 3) == [2, 3, 3]


@pytest.mark.parametrize("way", WAYS)
def test_the_callback_finds_that_training_waits(tmp_path, way):
    class Slow(keras.utils.PyDataset):
        def __len__(self):
            return 1000

        def __getitem__(self, index):
            time.sleep(0.03)
            return np.zeros((8, 4), "float32"), np.zeros((8, 1), "float32")

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with EchoingPyDataset(Slow(), steps_per_epoch=32) as dataset:
        callback = DataEchoCallback(dataset, tmp_path, max_factor=3.0, verbose=0)
        stream = read_ahead(dataset.as_tf_dataset()) if way == "tf.data" else None
        history = fit(model, dataset, way, epochs=2, stream=stream, callbacks=[callback])
        assert dataset.echo_factor > 1
    early, first = callback.decisions[:2]
    assert (early.step, first.step) == (10, 20)
    assert early.factor > early.previous_factor
    assert first.breakdown.origin == "trace"
    assert first.breakdown.upstream_seconds == pytest.approx(0.03, rel=0.5)
    assert history.history["echo_factor"][-1] > 1
    # Of tf.data's threads, JAX's profiler shows nothing.
    if (BACKEND, way) != ("jax", "tf.data"):
        assert first.breakdown.wait_fraction >= 0.0  # it is seen, whatever there was


def test_a_library_that_is_missing_is_named(numbered, monkeypatch):
    with EchoingPyDataset(numbered(3)) as dataset:
        for library, method in (("tensorflow", "as_tf_dataset"), ("grain", "as_grain")):
            monkeypatch.setitem(sys.modules, library, None)
            with pytest.raises(ImportError, match=f"{library} must be installed. Received: "):
                getattr(dataset, method)()
