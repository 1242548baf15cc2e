"""All kinds of sources, and what is said of those that can't be used."""

import itertools
import math
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_echo import EchoingPyDataset

X = np.arange(12, dtype="float32").reshape(12, 1)
BACKEND = keras.backend.backend()


def batches(num=3):
    for number in range(num):
        yield X[number * 4 : number * 4 + 4], X[number * 4 : number * 4 + 4]


def firsts(dataset, num):
    return [int(keras.ops.convert_to_numpy(dataset[0][0])[0, 0]) for _ in range(num)]


def trains(dataset):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return np.isfinite(model.fit(dataset, epochs=2, verbose=0).history["loss"]).all()


def test_a_callable():
    with EchoingPyDataset(batches, echo_factor=2, steps_per_epoch=3, shuffle_buffer=0) as dataset:
        assert firsts(dataset, 14) == [0, 0, 4, 4, 8, 8, 0, 0, 4, 4, 8, 8, 0, 0]
        assert trains(dataset)


def test_a_sequence_resumes_in_the_middle_of_a_pass():
    with EchoingPyDataset(batches, echo_factor=2, steps_per_epoch=3, shuffle_buffer=0) as dataset:
        firsts(dataset, 9)
        state = dataset.state_dict()
    with EchoingPyDataset(batches, echo_factor=2, steps_per_epoch=3, shuffle_buffer=0) as dataset:
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


class Corrupt:
    """Passes of 10 batches, of which some can't be read; its iterators survive that."""

    def __init__(self, corrupt, length=10):
        self.corrupt = corrupt
        self.length = length

    def __iter__(self):
        return map(self.read, range(self.length))

    def read(self, index):
        if index in self.corrupt:
            raise OSError(f"batch {index} is corrupt")
        return np.full((2, 1), index, "float32"), np.zeros((2, 1), "float32")


class DyingAtCorrupt(Corrupt):
    """As a generator, which ends where it raises."""

    def __iter__(self):
        for index in range(self.length):
            yield self.read(index)


def skipping(source, **options):
    return EchoingPyDataset(source.__iter__, steps_per_epoch=8, **{"on_error": "skip", **options})


@pytest.mark.filterwarnings("ignore:A read failed and was skipped:RuntimeWarning")
@settings(max_examples=25)
@given(
    corrupt=st.sets(st.integers(0, 9), max_size=6),
    num_before=st.integers(3, 25),
    options=st.sampled_from(
        [
            {},
            {"echo_factor": 2.5},
            {"shuffle_buffer": 3, "seed": 1},
            {"echo": "example"},
            {"echo": "example", "echo_factor": 2.5},
        ]
    ),
)
def test_a_sequence_with_corrupt_batches_resumes_where_it_was(corrupt, num_before, options):
    with skipping(Corrupt(corrupt), **options) as dataset:
        firsts(dataset, num_before)
        state = dataset.state_dict()
        whole = firsts(dataset, 20)
    assert not corrupt & set(whole)
    with skipping(Corrupt(corrupt), **options) as dataset:
        dataset.load_state_dict(state)
        assert firsts(dataset, 20) == whole


@pytest.mark.parametrize("kind", ["sequence", "PyDataset"])
@pytest.mark.parametrize("echo", ["batch", "example"])
def test_what_a_buffer_held_is_left_out_where_it_cannot_be_read_again(numbered, echo, kind):
    class Failing(numbered):
        corrupt = frozenset()

        def __getitem__(self, index):
            if index in self.corrupt:
                raise OSError(f"batch {index} is corrupt")
            return super().__getitem__(index)

    source = Failing(10, batch_size=2)

    def dataset():
        wrapped = source if kind == "PyDataset" else lambda: map(source.__getitem__, range(10))
        return EchoingPyDataset(
            wrapped,
            echo=echo,
            echo_factor=3,
            shuffle_buffer=6,
            shuffle=False,
            steps_per_epoch=8,
            on_error="skip",
            seed=1,
        )

    with dataset() as one:
        firsts(one, 9)
        state = one.state_dict()
        held = {ordinal for _, ordinal, *_ in state["echo"].get("blocks") or state["echo"]["held"]}
    source.corrupt = frozenset({min(held), max(held)})
    with dataset() as other:
        other.load_state_dict(state)
        with pytest.warns(RuntimeWarning, match="is corrupt"):
            numbers = firsts(other, 12)
        assert not source.corrupt & set(numbers)
        assert other.stats().skipped_reads >= len(source.corrupt)


@pytest.mark.filterwarnings("ignore:A read failed and was skipped:RuntimeWarning")
def test_skipping_resumes_by_value():
    evens = Corrupt({1, 3, 5, 7, 9})
    with skipping(evens) as dataset:
        assert firsts(dataset, 4) == [0, 2, 4, 6]
        state = dataset.state_dict()
    with skipping(evens) as dataset:
        dataset.load_state_dict(state)
        assert firsts(dataset, 4) == [8, 0, 2, 4]


@pytest.mark.filterwarnings("ignore:A read failed and was skipped:RuntimeWarning")
def test_a_generator_that_always_fails_at_one_place_ends_its_pass_there():
    with skipping(DyingAtCorrupt({4})) as dataset:
        assert firsts(dataset, 9) == [0, 1, 2, 3, 0, 1, 2, 3, 0]


@pytest.mark.filterwarnings("ignore:A read failed and was skipped:RuntimeWarning")
def test_a_generator_that_fails_once_loses_that_batch_alone():
    source = DyingAtCorrupt({4})
    read = source.read

    def read_and_mend(index):
        try:
            return read(index)
        finally:
            if index == 4:
                source.corrupt = set()

    source.read = read_and_mend
    with skipping(source) as dataset:
        assert firsts(dataset, 10) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 0]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.filterwarnings("ignore:A read failed and was skipped:RuntimeWarning")
def test_a_generator_that_dies_before_its_place_is_heard_of(on_error):
    with skipping(DyingAtCorrupt(set()), on_error=on_error) as dataset:
        firsts(dataset, 6)
        state = dataset.state_dict()
    with skipping(DyingAtCorrupt({2}), on_error=on_error) as dataset:
        dataset.load_state_dict(state)
        if on_error == "raise":
            for _ in range(2):
                with pytest.raises(OSError, match="batch 2 is corrupt"):
                    dataset[0]
        else:
            assert firsts(dataset, 3) == [0, 1, 0]
            assert dataset.stats().skipped_reads >= 1


@pytest.mark.filterwarnings("ignore:A read failed and was skipped:RuntimeWarning")
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_source_that_cannot_be_opened_is_a_failed_read(on_error):
    fails = [2]

    def unreliable():
        if fails[0]:
            fails[0] -= 1
            raise OSError("no connection")
        return iter(Corrupt(set()))

    with EchoingPyDataset(
        unreliable, steps_per_epoch=8, on_error=on_error, max_queue_size=1
    ) as dataset:
        if on_error == "raise":
            while fails[0]:
                with pytest.raises(OSError, match="no connection"):
                    dataset[0]
            assert firsts(dataset, 2) == [0, 1]
        else:
            assert firsts(dataset, 9) == [2, 3, 4, 5, 6, 7, 8, 9, 0]


def test_an_endless_pydataset(numbered):
    class Endless(numbered):
        num_batches = None

    with EchoingPyDataset(
        Endless(1), echo_factor=2, steps_per_epoch=3, shuffle_buffer=0
    ) as dataset:
        assert firsts(dataset, 6) == [0, 0, 1, 1, 2, 2]
        assert trains(dataset)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data needs TensorFlow")
def test_a_tf_data_dataset():
    import tensorflow as tf

    source = tf.data.Dataset.from_tensor_slices((X, X)).batch(4)
    with EchoingPyDataset(source, echo_factor=2, shuffle_buffer=0) as dataset:
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
    with EchoingPyDataset(source, echo_factor=2, shuffle_buffer=0) as dataset:
        assert len(dataset) == 3
        assert firsts(dataset, 8) == [0, 0, 4, 4, 8, 8, 0, 0]
        assert trains(dataset)


@pytest.mark.skipif(BACKEND != "torch", reason="a DataLoader needs PyTorch")
@pytest.mark.parametrize("is_batch_sampler", [False, True])
def test_a_distributed_sampler_is_told_of_each_pass(is_batch_sampler):
    import torch

    def loader():
        data = torch.utils.data.TensorDataset(torch.arange(12.0).reshape(12, 1))
        sampler = torch.utils.data.DistributedSampler(data, num_replicas=2, rank=0, seed=3)
        if not is_batch_sampler:
            return sampler, torch.utils.data.DataLoader(data, batch_size=2, sampler=sampler)
        batches = torch.utils.data.BatchSampler(sampler, 2, drop_last=False)
        return sampler, torch.utils.data.DataLoader(data, batch_sampler=batches)

    sampler, plain = loader()
    expected = []
    for number in range(4):
        sampler.set_epoch(number)
        expected += [int(x[0, 0]) for (x,) in plain]
    assert expected[:3] != expected[3:6]
    with EchoingPyDataset(loader()[1]) as dataset:
        assert firsts(dataset, 12) == expected
    with EchoingPyDataset(loader()[1]) as dataset:
        firsts(dataset, 7)
        state = dataset.state_dict()
    with EchoingPyDataset(loader()[1]) as dataset:
        dataset.load_state_dict(state)
        assert firsts(dataset, 5) == expected[7:]


@pytest.mark.parametrize("is_batched_after", [False, True])
def test_a_repeated_grain_dataset_has_no_length(is_batched_after):
    grain = pytest.importorskip("grain")
    source = grain.MapDataset.source(list(X)).map(lambda x: (x, x))
    source = source.repeat().batch(4) if is_batched_after else source.batch(4).repeat()
    with pytest.raises(ValueError, match=r"^steps_per_epoch must be given for a source without"):
        EchoingPyDataset(source)
    with EchoingPyDataset(source, steps_per_epoch=3) as dataset:
        assert len(dataset) == 3
        assert firsts(dataset, 5) == [0, 4, 8, 0, 4]


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
        "echo must be 'batch' or 'example'. Received: 'exmaple'. The default is 'batch'.",
    ),
    "placement": (
        {"placement": "gpu"},
        ValueError,
        "placement must be 'auto' or 'host' or 'device'. Received: 'gpu'. The default is 'auto'.",
    ),
    "on_error": (
        {"on_error": "ignore"},
        ValueError,
        "on_error must be 'raise', 'skip', a keras_echo.Skip or a keras_echo.Retry. "
        "Received: 'ignore'. The default is 'raise'.",
    ),
    "shuffle_buffer": (
        {"shuffle_buffer": -1},
        ValueError,
        'shuffle_buffer must be a number of batches or examples or "auto". Received: -1. '
        "Pass 0 or more, or leave it out.",
    ),
    "kind of shuffle_buffer": (
        {"shuffle_buffer": 2.5},
        TypeError,
        'shuffle_buffer must be a number of batches or examples or "auto". Received: 2.5. '
        "Pass 0 or more, or leave it out.",
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
        'workers must be a number of readers or "auto". Received: 0. Pass 1 or more, or leave it '
        "out.",
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
    with EchoingPyDataset(
        lambda: list(batches()), echo_factor=2, steps_per_epoch=3, shuffle_buffer=0
    ) as dataset:
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
