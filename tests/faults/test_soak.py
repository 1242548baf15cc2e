"""What `make soak` takes for growth."""

import pytest
from soak import Sample, faults, growth, sample


def samples(memory=lambda step: 500.0, **counts):
    steady = {"threads": 20, "processes": 0, "files": 6}
    return [
        Sample(step, memory(step), **{**steady, **{name: of(step) for name, of in counts.items()}})
        for step in range(1000, 101_000, 1000)
    ]


def test_what_stays_is_no_fault():
    assert faults(samples()) == []
    assert faults(samples(lambda step: 500 + 1.0 * min(step, 20_000) / 1000)) == []
    assert faults(samples(threads=lambda step: 20 + step // 1000 % 2)) == []


@pytest.mark.parametrize("per_steps", [1.1, 5.0])
def test_memory_that_grows_is_one(per_steps):
    grown = samples(lambda step: 500 + per_steps * step / 10_000)
    assert growth(grown) == pytest.approx(per_steps)
    assert faults(grown) == [f"memory grows by {per_steps:.2f} MB per 10,000 steps"]


@pytest.mark.parametrize("name", ["threads", "processes", "files"])
def test_counts_that_grow_are_one(name):
    (fault,) = faults(samples(**{name: lambda step: 3 + step // 20_000}))
    assert fault.startswith(f"{name} grow from")


def test_a_sample_sees_an_open_file(tmp_path):
    before = sample(1)
    with (tmp_path / "file").open("w"):
        assert sample(1).files == before.files + 1
