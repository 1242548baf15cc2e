"""All kinds of sources, and what is said of those that can't be used."""

import itertools
import math
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_echo import EchoingPyDataset

X = np.arange(12, dtype="float32").reshape(12, 1)
BACKEND = keras.backend.backend()


def batches(num=3):
    for number in range(num):
        yield X[number * 4 : number * 4 + 4], X[number * 4 : number * 4 + 4]


def firsts(dataset, num):
    return [int(np.asarray(dataset[0][0])[0, 0]) for _ in range(num)]


def trains(dataset):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return np.isfinite(model.fit(dataset, epochs=2, verbose=0).history["loss"]).all()


def test_a_callable():
    with EchoingPyDataset(batches, echo_factor=2, steps_per_epoch=3) as dataset:
        assert firsts(dataset, 14) == [0, 0, 4, 4, 8, 8, 0, 0, 4, 4, 8, 8, 0, 0]
        assert trains(dataset)


def test_a_sequence_resumes_in_the_middle_of_a_pass():
    with EchoingPyDataset(batches, echo_factor=2, steps_per_epoch=3) as dataset:
        firsts(dataset, 9)
        state = dataset.state_dict()
    with EchoingPyDataset(batches, echo_factor=2, steps_per_epoch=3) as dataset:
        dataset.load_state_dict(state)
        assert firsts(dataset, 5) == [4, 8, 8, 0, 0]
        assert dataset.stats().passes == 2


def test_a_generator_that_fails_is_opened_again_at_its_place():
    fails = [True]

    def unreliable():
        for number, batch in enumerate(batches()):
            if number == 1 and fails:
                fails.pop()
                raise OSError("disk gone")
            yield batch

    with EchoingPyDataset(unreliable, steps_per_epoch=3) as dataset:
        assert firsts(dataset, 1) == [0]
        with pytest.raises(OSError, match="disk gone") as caught:
            dataset[0]
        assert caught.value.__notes__ == ["keras_echo was reading batch 1 of the source."]
        assert firsts(dataset, 3) == [4, 8, 0]


def test_an_endless_pydataset(numbered):
    class Endless(numbered):
        num_batches = None

    with EchoingPyDataset(Endless(1), echo_factor=2, steps_per_epoch=3) as dataset:
        assert firsts(dataset, 6) == [0, 0, 1, 1, 2, 2]
        assert trains(dataset)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data needs TensorFlow")
def test_a_tf_data_dataset():
    import tensorflow as tf

    source = tf.data.Dataset.from_tensor_slices((X, X)).batch(4)
    with EchoingPyDataset(source, echo_factor=2) as dataset:
        assert len(dataset) == 3
        assert firsts(dataset, 8) == [0, 0, 4, 4, 8, 8, 0, 0]
        assert trains(dataset)


@pytest.mark.skipif(BACKEND != "torch", reason="a DataLoader needs PyTorch")
def test_a_torch_dataloader():
    import torch

    tensor = torch.from_numpy(X)
    source = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(tensor, tensor), batch_size=4
    )
    with EchoingPyDataset(source, echo_factor=2) as dataset:
        assert len(dataset) == 3
        assert firsts(dataset, 8) == [0, 0, 4, 4, 8, 8, 0, 0]
        assert trains(dataset)


def test_no_library_is_imported_but_those_that_keras_imports():
    script = """
import sys
import keras, numpy
before = set(sys.modules)
import keras_echo
with keras_echo.EchoingPyDataset((numpy.zeros((4, 1)), numpy.zeros((4, 1)))) as dataset:
    dataset[0]
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new & {"tensorflow", "jax", "torch", "grain", "tensorboard", "matplotlib"}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_arrays_are_shuffled_by_examples():
    with EchoingPyDataset((X, X), batch_size=5, seed=2) as dataset:
        assert len(dataset) == 3
        passes = [np.concatenate([dataset[0][0] for _ in range(3)])[:, 0] for _ in range(2)]
    for one in passes:
        assert sorted(one) == list(range(12))
    assert list(passes[0]) != list(passes[1])


def test_the_seed_is_drawn_from_keras_own(numbered):
    def order():
        keras.utils.set_random_seed(7)
        with EchoingPyDataset(numbered(20)) as dataset:
            return firsts(dataset, 20)

    assert order() == order()


class Lambda(keras.utils.PyDataset):
    def __init__(self):
        super().__init__(use_multiprocessing=True)
        self.function = lambda: None

    def __len__(self):
        return 1


class Empty(keras.utils.PyDataset):
    def __len__(self):
        return 0


COUNT = "Pass 1 or more."
ERRORS = {
    "factor": (
        {"echo_factor": 0.5},
        ValueError,
        "echo_factor must be finite and at least 1. Received: 0.5. "
        "1.0 means no echoing, 4.0 uses every upstream output four times.",
    ),
    "nan": (
        {"echo_factor": math.nan},
        ValueError,
        "echo_factor must be finite and at least 1. Received: nan. "
        "1.0 means no echoing, 4.0 uses every upstream output four times.",
    ),
    "string": (
        {"echo_factor": "2"},
        TypeError,
        "echo_factor must be a real number. Received: '2'. "
        "1.0 means no echoing, 4.0 uses every upstream output four times.",
    ),
    "echo": (
        {"echo": "exmaple"},
        ValueError,
        "echo must be 'batch' or 'example'. Received: 'exmaple'. Leave it out for the first.",
    ),
    "placement": (
        {"placement": "gpu"},
        ValueError,
        "placement must be 'auto' or 'host' or 'device'. Received: 'gpu'. "
        "Leave it out for the first.",
    ),
    "on_error": (
        {"on_error": "ignore"},
        ValueError,
        "on_error must be 'raise' or 'skip'. Received: 'ignore'. Leave it out for the first.",
    ),
    "shuffle_buffer": (
        {"shuffle_buffer": -1},
        ValueError,
        "shuffle_buffer must be at least 0. Received: -1. Pass 0 or more.",
    ),
    "batch_size": (
        {"batch_size": 0},
        ValueError,
        f"batch_size must be at least 1. Received: 0. {COUNT}",
    ),
    "steps": (
        {"steps_per_epoch": 1.5},
        TypeError,
        f"steps_per_epoch must be an integer. Received: 1.5. {COUNT}",
    ),
    "workers": (
        {"workers": 0},
        ValueError,
        f"workers must be at least 1. Received: 0. {COUNT}",
    ),
    "queue": (
        {"max_queue_size": 0},
        ValueError,
        f"max_queue_size must be at least 1. Received: 0. {COUNT}",
    ),
    "seed": (
        {"seed": "lucky"},
        TypeError,
        "seed must be an integer. Received: 'lucky'. Pass 0 or more.",
    ),
    "augment": (
        {"augment": "flip"},
        TypeError,
        "augment must be a function of a batch or a Keras layer. Received: 'flip'. Pass None to "
        "leave it out.",
    ),
    "empty": (
        {"source": Empty()},
        ValueError,
        "source must yield at least one batch in each pass. Received: <Empty>. Check the data's "
        "path and filters; a callable must return a new iterator at each call.",
    ),
    "no examples": (
        {"source": (X[:0], X[:0])},
        ValueError,
        "source must yield at least one batch in each pass. Received: "
        "(array([], shape=(0, 1), dtype=float32), array([], shape=(0, 1), dtype=float32)). Check "
        "the data's path and filters; a callable must return a new iterator at each call.",
    ),
    "lengths": (
        {"source": (X, X[:5])},
        ValueError,
        "The arrays of the source must have the same first dimension, the number of examples. "
        "Received: [(12, 1), (5, 1)]. Pass (x, y) or (x, y, sample_weight) with one row for each "
        "example.",
    ),
    "no length": (
        {"source": batches},
        ValueError,
        "steps_per_epoch must be given for a source without a length. Received: None. Pass the "
        "number of optimizer steps in an epoch.",
    ),
    "workers for a sequence": (
        {"source": batches, "steps_per_epoch": 3, "workers": 4},
        ValueError,
        "workers must be 1, and use_multiprocessing False, for a source that is read in sequence. "
        "Received: (4, None). Give the source itself more workers, or pass a "
        "keras.utils.PyDataset.",
    ),
    "a list": (
        {"source": [1, 2]},
        TypeError,
        "source must be a keras.utils.PyDataset, a tf.data.Dataset, a torch DataLoader, a Grain "
        "dataset, a callable that returns an iterator of batches, or arrays as a tuple (x, y). "
        "Received: [1, 2]. Pass (x, y) as a tuple, ([a, b], y) for two inputs, or lambda: "
        "iter(batches) for a list of batches.",
    ),
    "augment of x and y": (
        {"augment": lambda x, y: (x, y)},
        TypeError,
        "augment must be a function of one argument, the batch as the source returns it. Received: "
        "'augment(x, y)'. Take the batch apart inside, as in: def augment(batch): x, y = batch.",
    ),
    "augment of nothing": (
        {"augment": lambda *, rng, strength: None},
        TypeError,
        "augment must be a function of one argument, the batch as the source returns it. Received: "
        "'augment(*, rng, strength)'. Take the batch apart inside, as in: def augment(batch): x, y "
        "= batch.",
    ),
    "array": (
        {"source": 3},
        TypeError,
        "source must be a keras.utils.PyDataset, a tf.data.Dataset, a torch DataLoader, a Grain "
        "dataset, a callable that returns an iterator of batches, or arrays as a tuple (x, y). "
        "Received: 3. For a generator, pass the function that makes it, so that a new pass can "
        "begin.",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_arguments_say_what_to_do(name, monkeypatch):
    monkeypatch.setattr(Empty, "__repr__", lambda self: "<Empty>")
    arguments, kind, message = ERRORS[name]
    with pytest.raises(kind) as caught:
        EchoingPyDataset(**{"source": (X, X), **arguments})
    assert str(caught.value) == message


def test_x_and_y_apart():
    with pytest.raises(TypeError) as caught:
        EchoingPyDataset("x", "y")
    assert str(caught.value) == (
        "source must be one argument, and all others be named. Received: ('x', 'y'). Pass (x, y) "
        "as one tuple: EchoingPyDataset((x, y), ...)."
    )


@pytest.mark.parametrize(
    "returned", [None, 3, (X, X), {"x": X}, X], ids=["None", "int", "batch", "dict", "array"]
)
def test_a_callable_must_return_an_iterator(returned):
    """A batch is one as well, of arrays that could be batches of x alone."""
    with (
        EchoingPyDataset(lambda: returned, steps_per_epoch=3) as dataset,
        pytest.raises(TypeError, match=r"^What the source returns when it is called") as caught,
    ):
        dataset[0]
    assert str(caught.value).endswith(
        "Make it a generator: yield each batch instead of returning one."
    )


def test_a_callable_may_return_a_list_of_batches():
    with EchoingPyDataset(lambda: list(batches()), echo_factor=2, steps_per_epoch=3) as dataset:
        assert firsts(dataset, 7) == [0, 0, 4, 4, 8, 8, 0]


def test_arrays_hold_no_tf_sparse_tensor():
    SparseTensor = type("SparseTensor", (), {})  # noqa: N806
    with pytest.raises(TypeError, match=r"must be no tf\.SparseTensor") as caught:
        EchoingPyDataset((SparseTensor(), X))
    assert str(caught.value).endswith(
        "Pass tf.data.Dataset.from_tensor_slices((x, y)).batch(32), or SciPy's csr_matrix."
    )


@pytest.mark.parametrize("echo", ["batch", "example"])
@pytest.mark.parametrize("returned", [None, 3, ()])
def test_what_augment_returns_is_told_from_what_the_source_does(returned, echo):
    with (
        EchoingPyDataset((X, X), augment=lambda batch: returned, echo=echo) as dataset,
        pytest.raises(ValueError, match=r"^What augment returns must be a tuple") as caught,
    ):
        dataset[0]
    assert str(caught.value).endswith(
        f"Received: {returned}. Return the whole batch from augment, even where it is changed in "
        "place."
    )


def test_a_source_for_processes_must_be_picklable():
    with pytest.raises(
        ValueError, match=r"^A source with use_multiprocessing=True must be pick"
    ) as e:
        EchoingPyDataset(Lambda())
    assert str(e.value).endswith(
        "Keep locks, open files and lambdas out of its attributes, or pass "
        "use_multiprocessing=False to read with threads."
    )
    EchoingPyDataset(Lambda(), use_multiprocessing=False)


def test_a_generator_and_a_used_up_iterator_are_told_apart():
    with pytest.raises(TypeError, match="For a generator, pass the function that makes it"):
        EchoingPyDataset(batches(), steps_per_epoch=3)
    used_up = batches()
    with EchoingPyDataset(lambda: used_up, steps_per_epoch=3) as dataset:
        assert firsts(dataset, 3) == [0, 4, 8]
        with pytest.raises(ValueError, match="a callable must return a new iterator at each call"):
            dataset[0]


@pytest.mark.parametrize("state", [{}, {"version": 2}, {"version": 1, "seed": "x"}, None])
def test_a_foreign_state_is_refused(state):
    with EchoingPyDataset((X, X)) as dataset:
        with pytest.raises(ValueError, match=r"^state must be what state_dict\(\) returned, ver"):
            dataset.load_state_dict(state)
        assert len(list(itertools.islice(dataset, 1))) == 1
