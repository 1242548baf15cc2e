"""Real digits on real photographs, with boxes: data for object detection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keras_echo._optional import optional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MOST_DIGITS = 6
_TRIES = 20
_SIDES = 22, 30  # of a digit's box, the shortest and the longest, in pixels


def load_photographs() -> list[NDArray[np.uint8]]:
    """Returns the colour photographs that ship inside scikit-image and scikit-learn.

    Returns:
        Seven images of shape (height, width, 3), each at half its size.
    """
    data = optional("skimage.data", "contains photographs")
    samples = optional("sklearn.datasets", "contains photographs").load_sample_images().images
    names = ("astronaut", "rocket", "chelsea", "coffee")
    whole = [data.stereo_motorcycle()[0], *samples, *(getattr(data, name)() for name in names)]
    return [_halved(photograph) for photograph in whole]


def paste_digits(
    num: int,
    side: int,
    digits: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    photographs: Sequence[NDArray[np.uint8]],
    *,
    seed: int,
) -> dict[str, NDArray[np.uint8] | NDArray[np.float32]]:
    """Makes images with digits that don't overlap, each on a part of a photograph.

    Args:
        num: How many images.
        side: Their height and width in pixels.
        digits: Images of shape (any, height, width, 1), and their labels.
        photographs: What to cut the backgrounds from; none is smaller than `side`.
        seed: Of all that is random.

    Returns:
        `images`, uint8 of shape (num, side, side, 3); `boxes`, float32 of shape (num, MOST_DIGITS,
        4), as left, top, right and bottom in pixels: what the digit's image, scaled, covers; and
        `labels`, float32 of shape (num, MOST_DIGITS). Boxes and labels that an image has no digit
        for are -1, after those that it has.
    """
    rng = np.random.default_rng(seed)
    images = np.empty((num, side, side, 3), np.uint8)
    boxes = np.full((num, MOST_DIGITS, 4), -1, np.float32)
    labels = np.full((num, MOST_DIGITS), -1, np.float32)
    for i in range(num):
        photograph = photographs[int(rng.integers(len(photographs)))]
        top, left = (rng.integers(length - side + 1) for length in photograph.shape[:2])
        # Half as bright, so that bright digits stand out everywhere.
        images[i] = photograph[top : top + side, left : left + side] // 2
        for j, (left, top, size) in enumerate(_places(side, rng)):
            which = rng.integers(len(digits[0]))
            ink = _scaled(digits[0][which], size) / 255
            part = images[i, top : top + size, left : left + size]
            part[:] = (1 - ink) * part + ink * rng.uniform(160, 255, 3)
            boxes[i, j] = left, top, left + size, top + size
            labels[i, j] = digits[1][which]
    return {"images": images, "boxes": boxes, "labels": labels}


def _places(side: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    is_free = np.ones((side, side), bool)
    places: list[tuple[int, int, int]] = []
    for _ in range(_TRIES):
        size = int(rng.integers(_SIDES[0], _SIDES[1] + 1))
        left, top = rng.integers(side - size + 1, size=2)
        square = is_free[top : top + size, left : left + size]
        if len(places) < MOST_DIGITS and square.all():
            square[:] = False
            places.append((int(left), int(top), size))
    return places


def _scaled(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    rows, columns = (np.arange(size) * length // size for length in image.shape[:2])
    return image[np.ix_(rows, columns)]


def _halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = (length // 2 for length in image.shape[:2])
    squares = image[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    halved: NDArray[np.uint8] = squares.mean((1, 3)).astype(np.uint8)
    return halved
