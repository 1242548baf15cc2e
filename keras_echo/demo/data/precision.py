"""COCO's average precision of boxes, from arrays."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_echo._optional import optional

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class Precision(NamedTuple):
    """Average precision over all classes, in 0..1.

    Attributes:
        ap: Over overlaps of 50, 55, ... 95 %.
        ap50: Of boxes that overlap with the true ones by 50 % (intersection over union).
    """

    ap: float
    ap50: float


def average_precision(truth: Mapping[str, Any], found: Mapping[str, Any]) -> Precision:
    """Compares boxes that were found with those that are there, with pycocotools.

    Args:
        truth: `boxes`, of shape (images, most, 4), as left, top, right and bottom, and `labels`,
            of shape (images, most). A label below 0 is padding.
        found: The same, and `confidence`, of shape (images, most). A confidence of 0 is padding.
            An image's hundred most certain boxes of each class count.
    """
    there = _rows(truth, np.asarray(truth["labels"]) >= 0)
    guesses = _rows(found, np.asarray(found["confidence"]) > 0)
    if not (len(there) and len(guesses)):
        return Precision(0.0, 0.0)
    coco = optional("pycocotools.coco", "computes the average precision").COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(len(truth["boxes"]))],
        "categories": [{"id": label} for label in np.unique(there[:, -1]).tolist()],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "bbox": [left, top, width, height],
                "area": width * height,
                "iscrowd": 0,
                "category_id": label,
            }
            # From 1 on: pycocotools takes the number 0 for "matched with none".
            for number, (image, left, top, width, height, _, label) in enumerate(
                there.tolist(), start=1
            )
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = optional("pycocotools.cocoeval", "computes the average precision").COCOeval(
            coco, coco.loadRes(guesses), "bbox"
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return Precision(float(evaluation.stats[0]), float(evaluation.stats[1]))


def _rows(boxes: Mapping[str, Any], counts: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What counts, as pycocotools wants it: image, left, top, width, height, confidence, label."""
    corners = np.asarray(boxes["boxes"], np.float64)[counts]
    labels = np.asarray(boxes["labels"])[counts]
    confidence = np.asarray(boxes.get("confidence", boxes["labels"]))[counts]
    sizes = corners[:, 2:] - corners[:, :2]
    return np.column_stack([np.nonzero(counts)[0], corners[:, :2], sizes, confidence, labels])
