"""The memory of the whole process stays flat, wherever batches wait."""

from pathlib import Path

import numpy as np
import pytest

from keras_echo import EchoingPyDataset

MEBIBYTE = 2**20


def resident_bytes():
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the process must tell its size")
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
