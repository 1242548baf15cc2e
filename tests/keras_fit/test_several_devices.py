"""Several devices in one process: what each replica trains on, by value."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

SCRIPT = Path(__file__).with_name("mirrored.py")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow")
@pytest.mark.parametrize(
    ("placement", "echo", "factor"),
    [("auto", "batch", "4"), ("device", "batch", "2.5"), ("device", "example", "2.5")],
)
def test_no_use_sees_what_tensorflow_did_to_another(placement, echo, factor):
    done = subprocess.run(
        [sys.executable, SCRIPT, placement, echo, factor],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    trained_on = json.loads(done.stdout.splitlines()[-1])
    assert len(trained_on) == 3 * 12 * 2  # epochs, steps, replicas
    assert all(y == 100 + x for x, y in trained_on)
    assert {x for x, _ in trained_on} <= set(range(24))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras distributes on JAX")
def test_every_use_is_right_under_data_parallel():
    subprocess.run(
        [sys.executable, SCRIPT.with_name("data_parallel.py")],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        timeout=100,
        check=True,
    )
