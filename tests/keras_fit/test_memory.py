"""The memory of the whole process stays flat, wherever batches wait."""

from pathlib import Path

import keras
import numpy as np
import pytest

from keras_echo import EchoingPyDataset

MEBIBYTE = 2**20


def resident_bytes():
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


tells_its_size = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="the process must tell its size"
)


@tells_its_size
@pytest.mark.parametrize("placement", ["host", "device"])
@pytest.mark.parametrize("echo", ["batch", "example"])
def test_memory_is_flat_over_10_000_steps(echo, placement):
    """To lose one fresh batch in twenty would take 32 MiB more, to lose one use in eighty too."""
    batch = np.zeros((4, 2**16), "uint8"), np.zeros(4, "int32")  # a quarter of a MiB

    def batches():
        while True:
            yield batch[0].copy(), batch[1]

    with EchoingPyDataset(
        batches,
        echo=echo,
        echo_factor=4,
        shuffle_buffer=8,
        steps_per_epoch=100,
        placement=placement,
    ) as dataset:
        for _ in range(1000):
            dataset[0]
        before = resident_bytes()
        for _ in range(10_000):
            dataset[0]
        assert resident_bytes() - before < 32 * MEBIBYTE
        assert dataset.stats().fresh_batches == pytest.approx(11_000 / 4, abs=16)


@tells_its_size
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it keeps every dataset alive")
@pytest.mark.parametrize("augment", [None, lambda batch: batch], ids=["plain", "augmented"])
def test_a_closed_dataset_holds_no_data(augment):
    """One batch of each that stays would take 80 MiB more."""

    class Large(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return np.ones((32, 2**16), "float32"), np.zeros((32, 1), "float32")  # 8 MiB

    model = keras.Sequential([keras.layers.AveragePooling1D(2**16), keras.layers.Dense(1)])
    model.build((None, 2**16, 1))
    model.compile("sgd", "mse")

    def fit():
        with EchoingPyDataset(Large(), echo_factor=2, augment=augment) as dataset:
            model.fit(dataset, verbose=0)

    for _ in range(5):
        fit()
    before = resident_bytes()
    for _ in range(10):
        fit()
    assert resident_bytes() - before < 40 * MEBIBYTE
