"""The detection task: digits on colour photographs, and a detector of one stage without anchors.

The image is a grid of cells. A cell in which a digit has its centre says so, and predicts the
box; all others say that there is none. Between neighbours the most certain cell wins (after Zhou,
Wang, Kraehenbuehl, *Objects as Points*, arXiv 1904.07850, section 3).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from study.images import half_size_digits, photograph_regions
from study.workload import Batch, Workload

IMAGE = 32  # pixels
CELL = 4  # pixels
GRID = IMAGE // CELL
NUM_TRAIN = 4000
NUM_VALIDATION = 200
SECOND_DIGIT = 0.5  # its probability
MOST_DETECTIONS = 4  # per image


def detection() -> Workload:
    """Digits at random places; augmentation: flips, contrast, colours. Quality: AP50.

    Neither digits nor regions of photographs are shared by training and validation.
    x: float32 (num, IMAGE, IMAGE, 3) in -0.5..0.5; y: float32 (num, GRID, GRID, 5), for each cell
    whether there is a digit, its centre within the cell in 0..1 (column, row), and the logarithms
    of width and height in cells.
    """
    regions = photograph_regions()
    train_digits, held_out_digits = half_size_digits()
    rng = np.random.default_rng(2)
    train = _scenes(
        [block for blocks, _ in regions for block in blocks], train_digits[0], NUM_TRAIN, rng
    )
    images, targets = _scenes(
        [block for _, blocks in regions for block in blocks],
        held_out_digits[0],
        NUM_VALIDATION,
        rng,
    )
    truth = [decode(target[..., 1:])[target[..., 0] == 1] for target in targets]
    return Workload(
        train=train,
        validation=images,
        augment=varied,
        model=_detector,
        loss=detection_loss,
        score=lambda outputs: average_precision(outputs, truth),
    )


def varied(batch: Batch, rng: np.random.Generator) -> Batch:
    """Flips, contrast, and the colours in another order; the boxes follow."""
    images, targets = batch[0].copy(), batch[1].copy()
    num = len(images)
    flipped = rng.random(num) < 0.5
    images[flipped] = images[flipped, :, ::-1]
    mirrored = targets[flipped, :, ::-1]
    mirrored[..., 1] = np.where(mirrored[..., 0] == 1, 1 - mirrored[..., 1], 0)
    targets[flipped] = mirrored
    contrast = rng.uniform(0.7, 1.3, (num, 1, 1, 1)).astype(np.float32)
    colours = rng.permuted(np.tile(np.arange(3), (num, 1)), axis=1)
    images = np.take_along_axis(images, colours[:, None, None, :], -1)
    return images * contrast, targets


def detection_loss(y_true: Any, y_pred: Any) -> Any:
    """Cross-entropy of each cell, and the boxes' absolute errors where there is a digit."""
    there, said = y_true[..., 0], y_pred[..., 0]
    entropy = ops.binary_crossentropy(there, said, from_logits=True)
    errors = ops.sum(ops.abs(y_true[..., 1:] - y_pred[..., 1:]), -1)
    return ops.sum(entropy + there * errors, (1, 2))


def decode(boxes: np.ndarray) -> np.ndarray:
    """From what cells say, (..., GRID, GRID, 4), to (left, top, right, bottom) in pixels."""
    cells = np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID)), -1)  # (column, row)
    centres = CELL * (cells + boxes[..., :2])
    halves = CELL * np.exp(np.clip(boxes[..., 2:], -5, 3)) / 2
    return np.concatenate([centres - halves, centres + halves], -1)


def average_precision(outputs: np.ndarray, truth: list[np.ndarray]) -> float:
    """AP50 of one class: the area below the precision, which is made to fall, over recall.

    Args:
        outputs: (num, GRID, GRID, 5), cells as the model predicts them.
        truth: For each image, the boxes that are there, (num_boxes, 4).
    """
    outputs = np.nan_to_num(outputs, nan=-50.0)
    scores = outputs[..., 0]
    padded = np.pad(scores, [(0, 0), (1, 1), (1, 1)], constant_values=-np.inf)
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2)).max((-1, -2))
    peaks = np.where(scores >= around, scores, -np.inf).reshape(len(scores), -1)
    best = np.argsort(-peaks, axis=1)[:, :MOST_DETECTIONS]
    boxes = decode(outputs[..., 1:]).reshape(len(scores), -1, 4)
    found = [
        (peaks[image, cell], image, boxes[image, cell])
        for image in range(len(scores))
        for cell in best[image]
        if np.isfinite(peaks[image, cell])
    ]
    found.sort(key=lambda detection: -detection[0])
    free = [np.ones(len(boxes), bool) for boxes in truth]
    hits = np.zeros(len(found))
    for number, (_, image, box) in enumerate(found):
        overlaps = np.where(free[image], _overlaps(box, truth[image]), 0)
        if len(overlaps) and overlaps.max() >= 0.5:
            free[image][overlaps.argmax()] = False
            hits[number] = 1
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float((falling * hits).sum() / sum(map(len, truth)))


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with others, (num,)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = np.clip(sides, 0, None).prod(-1)
    areas = (others[:, 2:] - others[:, :2]).prod(-1) + (box[2:] - box[:2]).prod()
    return common / (areas - common)


def _scenes(
    blocks: list[np.ndarray], digits: np.ndarray, num: int, rng: np.random.Generator
) -> Batch:
    """Images with one digit, or two in different halves, and their cells."""
    images = np.empty((num, IMAGE, IMAGE, 3), np.float32)
    targets = np.zeros((num, GRID, GRID, 5), np.float32)
    for image, target in zip(images, targets, strict=True):
        block = blocks[rng.integers(len(blocks))]
        row, column = rng.integers(len(block) - IMAGE + 1, size=2)
        image[:] = block[row : row + IMAGE, column : column + IMAGE] / np.float32(255)
        halves = rng.permutation(2)[: 1 + (rng.random() < SECOND_DIGIT)]
        for half in halves:
            digit = _tight(digits[rng.integers(len(digits))][..., 0])
            height, width = digit.shape
            top = rng.integers(IMAGE - height + 1)
            left = half * IMAGE // 2 + rng.integers(IMAGE // 2 - width + 1)
            place = image[top : top + height, left : left + width]
            colour = rng.uniform(0, 1, 3).astype(np.float32)
            place += digit[..., None] * (colour - place)
            centre = np.array([left + width / 2, top + height / 2]) / CELL
            cell = centre.astype(int)
            target[cell[1], cell[0]] = [1, *(centre - cell), *np.log([width / CELL, height / CELL])]
    return images - np.float32(0.5), targets


def _tight(digit: np.ndarray) -> np.ndarray:
    """The part of an image in which something is."""
    rows, columns = np.nonzero(digit > 0.2)
    return digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _detector() -> Any:
    def convolution(filters: int, strides: int) -> Any:
        return layers.Conv2D(filters, 3, strides=strides, padding="same", activation="relu")

    x = inputs = keras.Input((IMAGE, IMAGE, 3))
    for filters, strides in ((8, 2), (16, 2), (24, 1)):
        x = convolution(filters, strides)(x)
    # One cell of 43 has a digit: begin there.
    there = layers.Dense(1, bias_initializer=keras.initializers.Constant(-3.7))(x)
    return keras.Model(inputs, layers.Concatenate()([there, layers.Dense(4)(x)]))
