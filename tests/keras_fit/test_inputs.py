"""What plain `fit()` trains on, an echoing dataset trains on: the same values, the same dtypes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from keras_echo import EchoingPyDataset

BACKEND = keras.backend.backend()
ALL = "tensorflow jax torch"
EVERYWHERE = "arrays PyDataset callable tf.data DataLoader Grain"
BATCH, NUM_BATCHES = 4, 3

X = np.arange(24, dtype="float32").reshape(12, 2)
Y = np.arange(12, dtype="int32").reshape(12, 1)
WORDS = np.array(["w" * (number + 1) for number in range(12)])


class Kind(NamedTuple):
    """A kind of data.

    Attributes:
        make: Returns twelve examples: x, or a tuple (x, y) or (x, y, sample_weight).
        sources: From which sources plain `fit()` takes it.
        backends: On which backends it does.
        has_rows: Whether it can be echoed by examples.
    """

    make: Callable[[], Any]
    sources: str
    backends: str = ALL
    has_rows: bool = True


def bfloat16():
    import ml_dtypes

    return X.astype(ml_dtypes.bfloat16)


def tensor(array):
    import tensorflow as tf

    return tf.constant(array)


def ragged():
    import tensorflow as tf

    return tf.RaggedTensor.from_row_lengths(tf.range(30.0), [1, 2, 3, 4] * 3)


def sparse():
    import tensorflow as tf

    return tf.sparse.from_dense(X)


def scipy_sparse(name):
    import scipy.sparse

    return getattr(scipy.sparse, name)(X)


def jax_sparse():
    import jax.experimental.sparse

    return jax.experimental.sparse.BCOO.fromdense(X)


def pandas_columns():
    import pandas

    x = pandas.DataFrame({"a": X[:, 0], "b": X[:, 1].astype("float64")})
    return x, pandas.Series(Y[:, 0])


TAKEN = {
    "x, y": Kind(lambda: (X, Y), EVERYWHERE),
    "x, y, w": Kind(lambda: (X, Y, np.linspace(1, 2, 12, dtype="float32")), "arrays PyDataset"),
    "(x,)": Kind(lambda: (X,), "arrays callable"),
    "x alone": Kind(lambda: X, "arrays PyDataset tf.data Grain"),
    "dict alone": Kind(lambda: {"a": X, "b": X + 1}, "arrays PyDataset tf.data"),
    "dict": Kind(lambda: ({"a": X, "b": X + 1}, Y), "arrays callable DataLoader"),
    "tuple of inputs": Kind(lambda: ((X, X + 1), Y), "arrays tf.data Grain"),
    "list of inputs": Kind(lambda: ([X, X + 1], Y), "arrays"),
    "no weight": Kind(lambda: (X, Y, None), "arrays callable tf.data Grain"),
    "no labels": Kind(lambda: (X, None), "arrays callable"),
    "None inside": Kind(lambda: ({"a": X, "b": None}, Y), "arrays callable tf.data", "jax torch"),
    "float64": Kind(lambda: (X.astype("float64"), Y), EVERYWHERE),
    "float16": Kind(lambda: (X.astype("float16"), Y), "arrays PyDataset"),
    "bfloat16": Kind(lambda: (bfloat16(), Y), "arrays PyDataset"),
    "int64": Kind(lambda: (X.astype("int64"), Y.astype("uint8")), "arrays PyDataset"),
    "bool": Kind(lambda: (X > 5, Y), "arrays tf.data"),
    "tensors": Kind(lambda: tuple(map(keras.ops.convert_to_tensor, (X, Y))), "arrays PyDataset"),
    "pandas": Kind(pandas_columns, "arrays"),
    "csr_matrix": Kind(lambda: (scipy_sparse("csr_matrix"), Y), "arrays", ALL, has_rows=False),
    "coo_array": Kind(lambda: (scipy_sparse("coo_array"), Y), "arrays", ALL, has_rows=False),
    "csr_matrix, read": Kind(
        lambda: (scipy_sparse("csr_matrix"), Y), "callable Grain", "tensorflow jax", has_rows=False
    ),
    "BCOO": Kind(lambda: (jax_sparse(), Y), "arrays PyDataset", "jax", has_rows=False),
    "SparseTensor": Kind(lambda: (sparse(), Y), "tf.data", "tensorflow jax", has_rows=False),
    "RaggedTensor": Kind(
        lambda: (ragged(), tensor(Y)), "arrays tf.data", "tensorflow jax", has_rows=False
    ),
    "RaggedTensor, read": Kind(
        lambda: (ragged(), tensor(Y)), "PyDataset callable", "tensorflow", has_rows=False
    ),
    "words": Kind(lambda: (WORDS.astype(object), Y), "arrays tf.data", "tensorflow"),
    "words <U": Kind(lambda: (WORDS, WORDS), "tf.data", "tensorflow"),
    "words S": Kind(lambda: (WORDS.astype("S"), Y), "tf.data", "tensorflow"),
    "words as tensors": Kind(
        lambda: (tensor(WORDS), tensor(Y)), "arrays PyDataset callable", "tensorflow"
    ),
}
"""What plain `fit()` takes, and so `EchoingPyDataset`: each kind, its sources and its backends."""


class Recorder(keras.Model):
    """Records the batches it is trained on."""

    def __init__(self):
        super().__init__()
        self.batches = []
        self.weight = self.add_weight(shape=(), name="weight")
        self.built = True
        self.compile("sgd", run_eagerly=True)

    def call(self, inputs):
        return inputs

    def get_metrics_result(self):
        return {}

    def train_step(self, *arguments):
        *state, batch = arguments
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        self.batches.append(
            [described(leaf) for leaf in keras.tree.flatten((x, y, weight)) if leaf is not None]
        )
        return ({"loss": np.float32(0)}, *state) if state else {"loss": np.float32(0)}


def described(leaf):
    kind = type(leaf).__name__
    if kind == "RaggedTensor":
        return kind, leaf.dtype.name, leaf.to_list()
    if kind == "SparseTensor":
        import tensorflow as tf

        return kind, leaf.dtype.name, tf.sparse.to_dense(leaf).numpy().tolist()
    if kind == "BCOO":
        return kind, leaf.dtype.name, leaf.todense().tolist()
    leaf = keras.ops.convert_to_tensor(leaf)  # JAX has no 64 bits, be they lost earlier or later
    dtype = keras.backend.standardize_dtype(leaf.dtype)
    return "dense", dtype, keras.ops.convert_to_numpy(leaf).tolist()


def trained_on(*data, **arguments):
    model = Recorder()
    model.fit(*data, shuffle=False, verbose=0, steps_per_epoch=NUM_BATCHES, **arguments)
    return model.batches


def batch(content, number):
    """Rows of all arrays, as a user would take them."""
    rows = slice(number * BATCH, (number + 1) * BATCH)
    return keras.tree.map_structure(lambda leaf: None if leaf is None else leaf[rows], content)


class Batches(keras.utils.PyDataset):
    def __init__(self, content):
        super().__init__()
        self.content = content

    def __len__(self):
        return NUM_BATCHES

    def __getitem__(self, index):
        return batch(self.content, index)


def generator(content):
    return lambda: (batch(content, number) for number in range(NUM_BATCHES))


def tf_data(content):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(content).batch(BATCH)


def data_loader(content):
    import torch

    class Examples(torch.utils.data.Dataset):
        def __len__(self):
            return BATCH * NUM_BATCHES

        def __getitem__(self, index):
            return keras.tree.map_structure(lambda leaf: leaf[index], content)

    return torch.utils.data.DataLoader(Examples(), batch_size=BATCH)


def grain_dataset(content):
    import grain

    return grain.MapDataset.source(range(NUM_BATCHES)).map(lambda number: batch(content, number))


SOURCES = {
    "arrays": lambda content: content,
    "PyDataset": Batches,
    "callable": generator,
    "tf.data": tf_data,
    "DataLoader": data_loader,
    "Grain": grain_dataset,
}


def plain(source, content):
    """What plain `fit()` trains on."""
    if source == "arrays":
        content = content if isinstance(content, tuple) else (content,)
        return trained_on(
            **dict(zip(("x", "y", "sample_weight"), content, strict=False)), batch_size=BATCH
        )
    data = SOURCES[source](content)
    return trained_on(data() if source == "callable" else data)


def echoing(source, content, **arguments):
    if source in ("arrays", "PyDataset"):
        arguments = {"shuffle": False, **arguments}
    return EchoingPyDataset(
        SOURCES[source](content),
        batch_size=BATCH,
        steps_per_epoch=NUM_BATCHES,
        **{"shuffle_buffer": 0, **arguments},  # in order
    )


def echoed(source, content, **arguments):
    """What is trained on through an echoing dataset."""
    with echoing(source, content, **arguments) as dataset:
        return trained_on(dataset)


# All kinds in one test: between two tests, all is collected that nobody refers to.
@pytest.mark.parametrize("source", EVERYWHERE.split())
def test_what_plain_fit_trains_on(source):
    for name, kind in TAKEN.items():
        if BACKEND not in kind.backends or source not in kind.sources:
            continue
        content = kind.make()
        first, second, third = plain(source, content)
        assert echoed(source, content) == [first, second, third], name
        for placement in "auto", "host":
            twice = echoed(source, content, echo_factor=2, placement=placement)
            assert twice == [first, first, second], (name, placement)
        if kind.has_rows:
            # A buffer of one batch keeps the order.
            twice = echoed(source, content, echo_factor=2, echo="example", shuffle_buffer=1)
            assert twice == [first, first, second], name


@pytest.mark.parametrize("source", EVERYWHERE.split())
def test_x_alone_from_all_sources(source):
    """Also from those of which plain `fit()` doesn't take it, a tensor in a PyDataset, say."""
    first, second, third = plain("arrays", X)
    for x in (X,) if source == "DataLoader" else (X, keras.ops.convert_to_tensor(X)):
        for placement in "auto", "host":
            arguments = {"placement": placement}
            assert echoed(source, x, **arguments) == [first, second, third]
            assert echoed(source, x, echo_factor=1.5, **arguments) == [first, second, second]
            assert echoed(source, x, echo_factor=4, **arguments) == [first, first, first]
        for arguments in {"echo": "example", "shuffle_buffer": 1}, {"augment": lambda batch: batch}:
            assert echoed(source, x, echo_factor=2, **arguments) == [first, first, second]


@pytest.mark.parametrize("name", ["csr_matrix", "SparseTensor", "RaggedTensor", "BCOO"])
def test_examples_must_be_dense(name):
    kind = TAKEN[name]
    if BACKEND not in kind.backends:
        pytest.skip("another backend's")
    source = kind.sources.split()[-1]
    with (
        echoing(source, kind.make(), echo="example") as dataset,
        pytest.raises(ValueError, match="for echo='example', must be dense") as caught,
    ):
        dataset[0]
    assert str(caught.value).endswith(
        "Make them dense in the source, padded to one shape, or pass echo='batch'."
    )


@pytest.mark.parametrize("name", ["csr_matrix", "RaggedTensor", "pandas"])
def test_shuffled_rows_stay_together(name):
    if BACKEND not in TAKEN[name].backends:
        pytest.skip("another backend's")
    content = TAKEN[name].make()
    rows = {}
    for x, y in plain("arrays", content):
        rows |= dict(zip((row for [row] in y[2]), x[2], strict=True))
    with EchoingPyDataset(content, batch_size=BATCH, seed=3) as dataset:
        shuffled = trained_on(dataset)
    order = [row for _, y in shuffled for [row] in y[2]]
    assert sorted(order) == list(range(12)) != order
    for x, y in shuffled:
        for values, [row] in zip(x[2], y[2], strict=True):
            width = min(len(values), len(rows[row]))
            assert values[:width] == rows[row][:width]
            assert not any(values[width:] + rows[row][width:])  # ragged ones, padded


@pytest.mark.skipif(BACKEND == "torch", reason="what Keras takes from tf.data on PyTorch is dense")
@pytest.mark.parametrize("source", ["arrays", "tf.data"])
def test_as_tf_dataset_takes_more_than_a_pydataset_may_serve(source):
    names = {
        "arrays": ["csr_matrix", "BCOO", "RaggedTensor", "list of inputs"],
        "tf.data": ["RaggedTensor", "SparseTensor", "words", "no weight", "dict alone"],
    }
    for name in names[source]:
        if BACKEND not in TAKEN[name].backends:
            continue
        content = TAKEN[name].make()
        first, second, _ = plain(source, content)
        with echoing(source, content, echo_factor=2) as dataset:
            assert trained_on(dataset.as_tf_dataset()) == [first, first, second], name


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the other backends take it")
def test_none_inside_names_what_takes_it():
    content = TAKEN["None inside"].make()
    first, second, _ = plain("callable", content)
    with echoing("callable", content, echo_factor=2) as dataset:
        assert trained_on(dataset.as_tf_dataset()) == [first, first, second]
        with pytest.raises(ValueError, match="must have no None inside x or y") as caught:
            trained_on(dataset)
    assert str(caught.value).endswith(
        "Pass dataset.as_tf_dataset() to fit(), which can, or leave the None out."
    )


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has strings")
@pytest.mark.parametrize("echo", ["batch", "example"])
def test_numpy_strings_of_growing_length(echo):
    """Plain `fit()` takes no such arrays; here each batch is of a wider dtype than the last."""

    def shrunk():
        for x, y in generator((WORDS, Y))():
            yield np.array(x.tolist()), y

    first, second, _ = plain("tf.data", (WORDS, Y))
    with EchoingPyDataset(
        shrunk, echo=echo, echo_factor=2, shuffle_buffer=int(echo == "example"), steps_per_epoch=3
    ) as dataset:
        assert trained_on(dataset) == [first, first, second]


def test_a_grain_data_loader():
    import grain

    class Rows:
        def __len__(self):
            return len(X)

        def __getitem__(self, index):
            return X[index], Y[index]

    def loader():
        sampler = grain.samplers.IndexSampler(len(X), shuffle=False, num_epochs=1)
        return grain.DataLoader(
            data_source=Rows(), sampler=sampler, operations=[grain.transforms.Batch(BATCH)]
        )

    first, second, _ = trained_on(loader())
    with EchoingPyDataset(loader(), echo_factor=2, shuffle_buffer=0, steps_per_epoch=3) as dataset:
        assert trained_on(dataset) == [first, first, second]
