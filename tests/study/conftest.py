"""The study runs on JAX, whatever the backend of the suite."""

import dataclasses

import keras
import pytest

collect_ignore_glob = [] if keras.backend.backend() == "jax" else ["test_*.py"]


@pytest.fixture(scope="module")
def digits():
    from study.training import workload_of

    # A small model compiles soon.
    return dataclasses.replace(workload_of("digits"), model=linear)


def linear():
    layers = keras.layers
    return keras.Sequential([keras.Input((14, 14, 1)), layers.Flatten(), layers.Dense(10)])


@pytest.fixture(scope="module")
def model(digits):
    from study.training import compiled

    return compiled(digits)
