"""PyTorch's loaders resume exactly where their order can be had again; otherwise it is said."""

import warnings

import keras
import pytest

from keras_echo import EchoingPyDataset
from keras_echo.testing import assert_resumes_exactly

if keras.backend.backend() != "torch":
    pytest.skip("a DataLoader needs PyTorch", allow_module_level=True)

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

X = torch.arange(26.0).reshape(26, 1)  # seven batches of four, the last one shorter
DATA = TensorDataset(X, -X)

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")


def seeded():
    return torch.Generator().manual_seed(3)


def stateful(**options):
    module = pytest.importorskip("torchdata.stateful_dataloader")
    return module.StatefulDataLoader(DATA, batch_size=4, **options)


class Endless(IterableDataset):
    def __iter__(self):
        rng = torch.Generator().manual_seed(1)
        while True:
            yield torch.randint(1000, (1,), generator=rng).float(), torch.zeros(1)


LOADERS = {
    "in order": lambda: DataLoader(DATA, batch_size=4),
    "shuffled": lambda: DataLoader(DATA, batch_size=4, shuffle=True, generator=seeded()),
    "drawn with replacement": lambda: DataLoader(
        DATA, batch_size=4, sampler=RandomSampler(DATA, replacement=True, generator=seeded())
    ),
    "weighted": lambda: DataLoader(
        DATA, batch_size=4, sampler=WeightedRandomSampler(range(1, 27), 26, generator=seeded())
    ),
    "batches of its own": lambda: DataLoader(
        DATA, batch_sampler=BatchSampler(RandomSampler(DATA, generator=seeded()), 4, True)
    ),
    "endless": lambda: DataLoader(Endless(), batch_size=4),
    "stateful": lambda: stateful(shuffle=True, generator=seeded()),
    "stateful, unseeded": lambda: stateful(shuffle=True),
}
WITH_WORKERS = {
    "shuffled": lambda: DataLoader(
        DATA, batch_size=4, shuffle=True, generator=seeded(), num_workers=2
    ),
    "with workers that stay": lambda: DataLoader(
        DATA,
        batch_size=4,
        shuffle=True,
        generator=seeded(),
        num_workers=2,
        persistent_workers=True,
    ),
    "stateful": lambda: stateful(shuffle=True, generator=seeded(), num_workers=2),
}
ECHOES = [
    {},
    {"echo_factor": 2.5, "shuffle_buffer": 0},
    {"echo_factor": 2.5},
    {"echo": "example", "echo_factor": 1.5},
]


def maker(make_loader, **options):
    return lambda: EchoingPyDataset(make_loader(), seed=1, steps_per_epoch=7, **options)


def served(dataset, num):
    return [dataset[0][0][:, 0].tolist() for _ in range(num)]


@pytest.mark.parametrize("options", ECHOES)
@pytest.mark.parametrize("name", LOADERS)
def test_it_resumes_exactly(name, options):
    make_dataset = maker(LOADERS[name], **options)
    assert_resumes_exactly(make_dataset, steps=45, every=4, compared=20)


@pytest.mark.parametrize("name", WITH_WORKERS)
def test_it_resumes_exactly_with_worker_processes(name):
    make_dataset = maker(WITH_WORKERS[name])
    assert_resumes_exactly(make_dataset, steps=18, every=6, compared=12)


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("stop", [0, 3, 7, 9])
def test_closing_and_nothing_else_changes_nothing(name, stop):
    """The loader has drawn for what was read ahead, and is to draw the same again."""
    if name == "stateful, unseeded":
        torch.manual_seed(1)
    with maker(LOADERS[name])() as dataset, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        served(dataset, 1)
        begin = dataset.state_dict()
        whole = served(dataset, stop + 12)
        dataset.load_state_dict(begin)
        numbers = served(dataset, stop)
        dataset.close()
        assert numbers + served(dataset, 12) == whole


@pytest.mark.parametrize("name", LOADERS)
def test_a_dataset_can_begin_anew(name):
    with maker(LOADERS[name], echo_factor=1.5)() as dataset:
        begin = dataset.state_dict()
        first = served(dataset, 20)
        dataset.load_state_dict(begin)
        assert served(dataset, 20) == first


@pytest.mark.parametrize(
    "make_loader",
    [
        lambda: DataLoader(DATA, batch_size=4, shuffle=True),
        lambda: DataLoader(DATA, batch_size=4, sampler=SubsetRandomSampler(range(20))),
        lambda: DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 4, False)),
    ],
)
def test_an_order_from_the_global_generator_is_told_of_once(make_loader):
    with maker(make_loader)() as dataset:
        served(dataset, 9)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            state = dataset.state_dict()
            dataset.state_dict()
    (said,) = [str(each.message) for each in caught]
    assert said.startswith(
        "The order of a source must come from a seeded generator, for training to resume with the "
        "batches that were missing. Received: <torch.utils.data.sampler."
    )
    assert said.endswith(
        "Pass generator=torch.Generator().manual_seed(0) to the DataLoader or its sampler. As it "
        "is, training resumes at this place, and not with these batches."
    )
    with maker(make_loader)() as dataset:
        dataset.load_state_dict(state)
        with pytest.warns(
            RuntimeWarning, match=r"^Batch \d of pass 1 of the source must be the one"
        ):
            served(dataset, 9)


@pytest.mark.parametrize("name", LOADERS)
def test_nothing_is_said_of_others(name):
    with maker(LOADERS[name])() as dataset, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        dataset.state_dict()
