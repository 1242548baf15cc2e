"""A model that records which batches it was trained on, and batches that tell which they are."""

import keras
import numpy as np


class Recorder(keras.Model):
    """Learns nothing much, and records in a variable which batches it was trained on, in order."""

    def __init__(self, num_steps=1000, *, is_built=True):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.seen = self.add_weight(
            shape=(num_steps,), initializer="zeros", trainable=False, dtype="float32"
        )
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, dtype="int32")
        self.compile("sgd", "mse")
        if is_built:
            self(np.zeros((1, 1), "float32"))

    def call(self, inputs, training=False):
        if training:
            row = keras.ops.one_hot(self.count, self.seen.shape[0])
            self.seen.assign(self.seen + row * keras.ops.max(inputs))
            self.count.assign(self.count + 1)
        return self.dense(inputs / 1000.0)

    def trained_on(self):
        count = int(keras.ops.convert_to_numpy(self.count))
        return [int(number) for number in keras.ops.convert_to_numpy(self.seen)[:count]]


class Numbered(keras.utils.PyDataset):
    """Batch i is full of i: each batch tells its index."""

    def __init__(self, length, *, batch_size=4, **kwargs):
        super().__init__(**kwargs)
        self.length = length
        self.batch_size = batch_size

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        x = np.full((self.batch_size, 1), index, "float32")
        return x, np.zeros((self.batch_size, 1), "float32")
