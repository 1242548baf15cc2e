"""What fit() trains on under `tf.distribute.MirroredStrategy`, on two virtual devices."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import pytest

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow"
)

# Devices are divided before TensorFlow is first used: in a process of its own.
SCRIPT = """
import json, sys, time
import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras
from keras_echo import EchoingPyDataset

BATCH = 4
seen = [], []  # by each replica: the numbers in the batch of each step


class Numbered(keras.utils.PyDataset):
    def __init__(self, length, seconds):
        super().__init__()
        self.length, self.seconds = length, seconds

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        time.sleep(self.seconds)
        x = np.full((BATCH, 1), index, "float32")
        return x, x


def record(replica, x, y):
    seen[int(replica)].append(sorted({*x.ravel().tolist(), *y.ravel().tolist()}))
    return np.float32(0)


class Recorder(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        nothing = tf.ensure_shape(tf.numpy_function(record, [replica, x, y], tf.float32), ())
        return keras.ops.mean((y - y_pred) ** 2) + nothing

    def call(self, inputs):
        return self.dense(inputs / 1000.0)


def trained_on(length, factor, echo, seconds=0, is_built=False):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = Recorder()
        if is_built:
            model(np.zeros((BATCH, 1), "float32"))
        model.compile("sgd")
    for replica in seen:
        replica.clear()

    def dataset():
        return EchoingPyDataset(
            Numbered(length, seconds), echo_factor=factor, echo=echo, shuffle_buffer=6, seed=1
        )

    with dataset() as fitted, dataset() as looped:
        for _ in range(2):
            model.fit(fitted, epochs=2, verbose=0)
        batches = [np.asarray(looped[0][0]).ravel() for _ in range(4 * length)]
        num_steps = fitted.stats().steps
    halves = BATCH // 2
    expected = [
        [sorted(set(batch[rows].tolist())) for batch in batches]
        for rows in (slice(halves), slice(halves, None))
    ]
    return {"num_steps": num_steps, "seen": seen, "expected": expected}


for case in json.loads(sys.argv[1]):
    print("RESULT", json.dumps(trained_on(**case)), flush=True)
"""


def trained_on(*cases):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), json.dumps(cases)],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == len(cases), done.stderr[-3000:]
    return [json.loads(line.removeprefix("RESULT ")) for line in lines]


def test_what_is_fetched_ahead_to_build_the_model_is_trained_on():
    """A long epoch and a short one, two fits of two epochs, values at each replica."""
    cases = [
        {"length": 60, "factor": 1.0, "echo": "batch"},
        {"length": 60, "factor": 2.5, "echo": "example", "is_built": True},
        {"length": 4, "factor": 1.0, "echo": "example"},
        {"length": 4, "factor": 2.5, "echo": "batch"},
        # Here more is still being fetched when the peek is over.
        {"length": 12, "factor": 1.0, "echo": "batch", "seconds": 0.02},
    ]
    for case, result in zip(cases, trained_on(*cases), strict=True):
        assert result["seen"] == result["expected"], case
        assert result["num_steps"] == 4 * case["length"]
