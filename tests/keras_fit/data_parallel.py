"""Trains under `DataParallel` on two virtual devices of JAX; fails if a batch isn't what it was."""

import itertools

import keras
import numpy as np

from keras_echo import EchoingPyDataset


class Model(keras.Model):
    """Its loss is 0 where the columns of x, and y if there is one, fit together."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        return self.dense(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        wrong = keras.ops.abs(x[:, 1] - x[:, 0] - 100)
        if y is not None:
            wrong += keras.ops.abs(y[:, 0] - x[:, 0] - 200)
        return keras.ops.max(wrong) + 0 * keras.ops.sum(y_pred)


keras.distribution.set_distribution(keras.distribution.DataParallel())
assert len(keras.distribution.list_devices()) == 2
numbers = np.repeat(np.arange(12, dtype="float32"), 4)[:, None]
x, y = np.concatenate([numbers, 100 + numbers], axis=1), 200 + numbers
num_fits = 0
for placement, echo, factor, data in itertools.product(
    ("host", "device", "auto"), ("batch", "example"), (1, 1.5, 2.5, 4), ((x, y), x)
):
    if (placement, echo) == ("device", "example"):
        continue  # refused under a distribution
    model = Model()
    model.compile("sgd")
    with EchoingPyDataset(
        data, batch_size=8, placement=placement, echo=echo, echo_factor=factor, seed=1
    ) as dataset:
        history = model.fit(dataset, epochs=2, verbose=0)
    assert history.history["loss"] == [0.0, 0.0], (placement, echo, factor, history.history)
    num_fits += 1
assert num_fits == 40
