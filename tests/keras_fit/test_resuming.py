"""Every kind of source goes on with exactly the batches that were missing, or it is said."""

import json
import random
import re
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_echo import Cache, EchoingPyDataset
from keras_echo.testing import assert_resumes_exactly

BACKEND = keras.backend.backend()
LENGTH = 6
SIZE = 3


def batch_of(numbers):
    x = np.asarray(numbers, "float32").reshape(-1, 1)
    return x, -x


def numbers_of(index):
    return np.arange(SIZE) + 10 * index


class Plain(keras.utils.PyDataset):
    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        return batch_of(numbers_of(index))


class ShufflesItself(Plain):
    """Draws its order from a generator of its own at the end of each epoch."""

    def __init__(self, **options):
        super().__init__(**options)
        self.rng = np.random.default_rng(5)
        self.order = np.arange(LENGTH)

    def __getitem__(self, index):
        return super().__getitem__(self.order[index])

    def on_epoch_end(self):
        self.rng.shuffle(self.order)


class Drifts(ShufflesItself):
    """Begins anywhere: which pass it is in, it knows from its state alone."""

    def __init__(self, **options):
        super().__init__(**options)
        self.rng = np.random.default_rng()

    def get_state(self):
        return {"rng": self.rng.bit_generator.state, "order": self.order}

    def set_state(self, state):
        self.rng.bit_generator.state = state["rng"]
        self.order = state["order"]


class DriftsWithoutHooks(Plain):
    """Each pass adds what was drawn from a generator when the one before it was over."""

    def __init__(self, **options):
        super().__init__(**options)
        self.rng = np.random.default_rng()
        self.offset = 0.0

    def __getitem__(self, index):
        return batch_of(numbers_of(index) + self.offset)

    def get_state(self):
        self.offset = self.rng.integers(1000)
        return (self.rng.bit_generator.state, self.offset)

    def set_state(self, state):
        self.rng.bit_generator.state, self.offset = state


class Walk:
    """Its passes go on where the last one ended, from a place that nobody else knows."""

    def __init__(self):
        self.rng = np.random.default_rng()

    def __call__(self):
        return WalkingPass(self.rng)


class WalkingPass:
    def __init__(self, rng):
        self.rng = rng
        self.num_read = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.num_read == LENGTH:
            raise StopIteration
        self.num_read += 1
        return batch_of(self.rng.integers(1000, size=SIZE))

    def get_state(self):
        return {"num_read": self.num_read, "rng": self.rng.bit_generator.state}

    def set_state(self, state):
        self.num_read = state["num_read"]
        self.rng.bit_generator.state = state["rng"]


def arrays():
    return batch_of(np.arange(LENGTH * SIZE - 1))


def generator():
    return lambda: (batch_of(numbers_of(index)) for index in range(LENGTH))


def grain_map():
    grain = pytest.importorskip("grain")
    source = grain.MapDataset.source(np.arange(20.0)).seed(3).shuffle()
    return source.random_map(lambda x, rng: x + rng.integers(9)).batch(SIZE, batch_fn=batch_of)


def grain_iter():
    return grain_map().to_iter_dataset()


def grain_loader():
    grain = pytest.importorskip("grain")
    return grain.DataLoader(
        data_source=np.arange(20.0),
        sampler=grain.samplers.IndexSampler(20, shuffle=True, seed=1, num_epochs=1),
        operations=[grain.transforms.Batch(SIZE, batch_fn=batch_of)],
    )


def tf_data(**options):
    tf = pytest.importorskip("tensorflow")
    numbers = tf.data.Dataset.from_tensor_slices(np.arange(20.0, dtype="float32")[:, None])
    shuffled = numbers.shuffle(20, **{"seed": 3, **options})
    return shuffled.map(lambda x: (x, -x)).batch(SIZE).prefetch(2)


SOURCES = {
    "arrays": arrays,
    "PyDataset": Plain,
    "PyDataset with hooks": ShufflesItself,
    "PyDataset with hooks and a state": Drifts,
    "PyDataset with a state": DriftsWithoutHooks,
    "generator": generator,
    "iterator with a state": Walk,
    "Grain's MapDataset": grain_map,
    "Grain's IterDataset": grain_iter,
    "Grain's DataLoader": grain_loader,
}
if BACKEND == "tensorflow":
    SOURCES["tf.data"] = tf_data
ECHOES = {
    "plain": {},
    "fractional": {"echo_factor": 2.5, "shuffle_buffer": 0},
    "shuffled": {"echo_factor": 2.5},
    "shuffled at factor 1": {"shuffle_buffer": 5},
    "examples": {"echo": "example", "echo_factor": 1.5},
    "plain examples": {"echo": "example"},
}


CANNOT_GO_BACK = {"PyDataset with hooks", "tf.data"}  # but start anew


def maker(make_source, **options):
    def make_dataset():
        return EchoingPyDataset(
            make_source(), **{"batch_size": SIZE, "seed": 1, "steps_per_epoch": LENGTH, **options}
        )

    return make_dataset


def served(dataset, num):
    return [keras.ops.convert_to_numpy(dataset[0][0])[:, 0].tolist() for _ in range(num)]


def state_after(dataset, num):
    served(dataset, num)
    return json.loads(json.dumps(dataset.state_dict()))


def what_is_said(make_dataset, stop):
    """The warnings of a dataset that goes on from the state of another one."""
    with make_dataset() as dataset, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = state_after(dataset, stop)
    with make_dataset() as dataset, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset.load_state_dict(state)
        served(dataset, 3 * LENGTH)
    return [str(each.message) for each in caught if each.category is RuntimeWarning]


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=8)
@given(
    echo=st.sampled_from(sorted(ECHOES)),
    stop=st.integers(1, 7 * LENGTH),
    workers=st.integers(1, 3),
    queue=st.integers(1, 12),
)
def test_it_resumes_exactly_and_nothing_is_said(name, echo, stop, workers, queue):
    is_parallel = name == "arrays" or name.startswith("PyDataset")
    options = {**ECHOES[echo], "max_queue_size": queue, "workers": workers if is_parallel else 1}
    make_dataset = maker(SOURCES[name], **options)
    assert_resumes_exactly(make_dataset, steps=stop, every=stop, compared=2 * LENGTH)
    assert what_is_said(make_dataset, stop) == []


def test_processes_get_the_state_that_was_set():
    make_dataset = maker(Drifts, use_multiprocessing=True, workers=1)
    assert_resumes_exactly(make_dataset, steps=LENGTH + 2, every=LENGTH + 2, compared=2)


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=3)
@given(stops=st.lists(st.integers(0, 9), min_size=2, max_size=4))
def test_it_resumes_several_times_in_a_row(name, stops):
    """Also without a step in between, and each time with other readers."""
    make_dataset = maker(SOURCES[name], **ECHOES["shuffled"])
    with make_dataset() as whole:
        state = state_after(whole, 3)
        expected = served(whole, sum(stops) + 5)
    numbers = []
    for workers, stop in enumerate([*stops, 5], start=1):
        is_parallel = name == "arrays" or name.startswith("PyDataset")
        options = {**ECHOES["shuffled"], "workers": workers if is_parallel else 1}
        with maker(SOURCES[name], **options)() as dataset, warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            dataset.load_state_dict(state)
            numbers += served(dataset, stop)
            state = state_after(dataset, 0)
    assert numbers == expected


def test_another_process_goes_on():
    keras.utils.set_random_seed(3)  # TensorFlow mixes its own into the seed of a shuffle
    makers = {name: maker(source, **ECHOES["shuffled"]) for name, source in SOURCES.items()}
    states, expected = {}, {}
    for name, make_dataset in makers.items():
        with make_dataset() as dataset:
            states[name] = state_after(dataset, 2 * LENGTH + 1)
            expected[name] = served(dataset, LENGTH)
    script = """
import json, sys
import keras
from test_resuming import ECHOES, SOURCES, maker, served
keras.utils.set_random_seed(3)
numbers = {}
for name, state in json.load(sys.stdin).items():
    with maker(SOURCES[name], **ECHOES["shuffled"])() as dataset:
        dataset.load_state_dict(state)
        numbers[name] = served(dataset, 6)
print(json.dumps(numbers))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", script],
        input=json.dumps(states),
        capture_output=True,
        text=True,
        timeout=100,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == expected


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - CANNOT_GO_BACK))
@pytest.mark.parametrize("stop", [0, 4, LENGTH, 8])
def test_closing_in_between_changes_nothing(name, stop):
    make_dataset = maker(SOURCES[name], echo_factor=1.5, shuffle_buffer=0)
    with make_dataset() as dataset:
        begin = state_after(dataset, 1)
        first = served(dataset, stop + 9)
        dataset.load_state_dict(begin)  # the same source, which has gone on
        again = served(dataset, stop)
        dataset.close()
        assert again + served(dataset, 9) == first


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - CANNOT_GO_BACK))
def test_a_dataset_can_begin_anew(name):
    """The state of the beginning holds nothing of the source, which has gone on since."""
    with maker(SOURCES[name], echo_factor=1.5)() as dataset, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        begin = state_after(dataset, 0)
        first = served(dataset, 3 * LENGTH)
        dataset.load_state_dict(begin)
        assert served(dataset, 3 * LENGTH) == first


def test_a_cache_changes_no_fingerprint(tmp_path):
    class Transposed(Plain):
        """Its arrays lie in memory as no file has them."""

        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return np.repeat(x, 5000, axis=1).T.copy().T, y

    cache = Cache(directory=tmp_path, directory_bytes=2**26, key="transposed")
    for options in ({"cache": cache}, {"cache": cache}, {}):
        with maker(Transposed, **options)() as dataset:
            served(dataset, LENGTH + 2)
            state = state_after(dataset, 0)
        for others in ({"cache": cache}, {}):
            with maker(Transposed, **others)() as dataset, warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                dataset.load_state_dict(state)
                served(dataset, 2)


@pytest.mark.parametrize(
    ("stop", "factor", "first", "after_closing"),
    [
        (3, 1.0, [2, 3, 4], 1),  # one batch more, to compare it
        (3, 2.0, [1, 2, 3], 3),  # the batch in use
        (6, 1.0, [5, 0, 1], 4),  # the last one of the pass
    ],
)
def test_one_batch_is_read_to_compare_it(stop, factor, first, after_closing):
    class Recording(Plain):
        def __init__(self):
            super().__init__()
            self.reads = []

        def __getitem__(self, index):
            self.reads.append(index)
            return super().__getitem__(index)

    options = {"echo_factor": factor, "shuffle_buffer": 0, "shuffle": False}
    with maker(Plain, **options)() as dataset:
        state = state_after(dataset, stop)
    source = Recording()
    with maker(lambda: source, **options)() as dataset:
        dataset.load_state_dict(state)
        served(dataset, 4)
        assert source.reads[:3] == first
        dataset.close()  # going on in the same process needs no comparison
        del source.reads[:]
        served(dataset, 1)
        assert source.reads[0] == after_closing


class ShufflesWithTheGlobalGenerator(ShufflesItself):
    def on_epoch_end(self):
        random.shuffle(self.order)


class Augments(Plain):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + np.float32(random.random()), y


def unseeded_generator():
    def batches():
        for _ in range(LENGTH):
            yield batch_of([random.random() for _ in range(SIZE)])

    return batches


def tf_data_with_the_global_generator():
    return tf_data(seed=None)


ANOTHER = re.compile(
    r"^Batch \d of pass \d of the source must be the one that it was when the state was taken, for "
    r"training to resume exactly\. Received: 'another batch'\. Build the dataset with the same "
    r"arguments, seed the source's order and its augmentation, and leave its data unchanged\. As "
    r"it is, training resumes at this place, and not with the batches that were missing\.$"
)


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("stop", [LENGTH + 2, 2 * LENGTH, 2 * LENGTH + 1])
@pytest.mark.parametrize(
    "source",
    [
        Augments,
        unseeded_generator,
        pytest.param(
            tf_data_with_the_global_generator,
            marks=pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data needs TensorFlow"),
        ),
    ],
)
def test_a_source_that_cannot_be_had_again_is_told_of_once(source, stop, echo):
    said = what_is_said(maker(source, **ECHOES[echo]), stop)
    assert len(said) == 1
    assert ANOTHER.match(said[0])


@pytest.mark.parametrize("echo", ["plain", "fractional", "examples"])
def test_an_order_that_cannot_be_had_again_is_told_of(echo):
    """Two orders may have the batch in common that is compared: not in all of five trials."""
    make_dataset = maker(ShufflesWithTheGlobalGenerator, shuffle=False, **ECHOES[echo])
    said = [what_is_said(make_dataset, 4 * LENGTH + 2) for _ in range(5)]
    assert any(said)
    assert all(len(each) <= 1 and all(map(ANOTHER.match, each)) for each in said)


def test_a_pass_that_is_shorter_now_is_told_of():
    make_dataset = maker(generator)
    with make_dataset() as dataset:
        state = state_after(dataset, 5)
    with maker(lambda: lambda: map(batch_of, [numbers_of(0), numbers_of(1)]))() as dataset:
        dataset.load_state_dict(state)
        with pytest.warns(RuntimeWarning, match=r"^Batch 4 of pass 0 of the source must be the"):
            assert served(dataset, 1) == [numbers_of(0).tolist()]


def test_what_no_state_may_have_is_said():
    class Secretive(Drifts):
        def get_state(self):
            return {"rng": self.rng}

    with (
        maker(Secretive)() as dataset,
        pytest.raises(TypeError, match=r"^The state of a source must consist of None") as caught,
    ):
        dataset[0]
    assert str(caught.value).endswith(
        "Return nothing else from the source's get_state() or state_dict(), so that it can be "
        "saved as JSON."
    )
