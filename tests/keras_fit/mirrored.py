"""Trains under `MirroredStrategy` on two virtual devices; prints each replica's (x, y) as JSON.

Arguments: placement, echo, echo factor.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_echo import EchoingPyDataset

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
trained_on = []


def record(x, y):
    trained_on.append((float(x), float(y)))
    return np.int32(0)


class Model(keras.Model):
    def __init__(self):
        super().__init__()
        self.scale = keras.layers.Rescaling(0.5)  # an operation that can write where it reads
        self.dense = keras.layers.Dense(1)

    def call(self, inputs):
        return self.dense(self.scale(inputs))

    def train_step(self, data):
        x, y = data
        tf.numpy_function(record, [x[0, 0] + 0, y[0, 0] + 0], tf.int32)
        return super().train_step(data)


x = np.repeat(np.arange(24, dtype="float32"), 4)[:, None] * np.ones(16, "float32")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = Model()
    model.compile("sgd", "mse")
placement, echo, factor = sys.argv[1:]
dataset = EchoingPyDataset(
    (x, 100 + x[:, :1]),
    batch_size=8,
    shuffle=False,
    placement=placement,
    echo=echo,
    echo_factor=float(factor),
)
with dataset:
    model.fit(dataset, epochs=3, verbose=0)
sys.stdout.write(json.dumps(trained_on) + "\n")
