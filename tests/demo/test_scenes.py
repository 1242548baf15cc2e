import socket

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_echo.demo.data import scenes

BLACK = [np.zeros((90, 110, 3), np.uint8)]
WHITE_DIGITS = np.full((10, 28, 28, 1), 255, np.uint8), np.arange(10, dtype=np.uint8)


@settings(max_examples=20)
@given(side=st.integers(30, 90), seed=st.integers(0, 2**32))
def test_boxes_are_where_digits_are(side, seed):
    made = scenes.paste_digits(3, side, WHITE_DIGITS, BLACK, seed=seed)
    assert made["images"].shape == (3, side, side, 3)
    assert made["boxes"].dtype == made["labels"].dtype == np.float32
    for image, boxes, labels in zip(*made.values(), strict=True):
        num = (labels >= 0).sum()
        assert 1 <= num <= scenes.MOST_DIGITS
        assert (labels[num:] == -1).all()
        assert (boxes[num:] == -1).all()
        count = np.zeros((side, side), int)
        for left, top, right, bottom in boxes[:num].astype(int):
            assert 22 <= right - left == bottom - top <= 30
            count[top:bottom, left:right] += 1
        assert count.max() == 1  # none overlap
        np.testing.assert_array_equal(count == 1, (image >= 159).all(-1))
        np.testing.assert_array_equal(count == 0, (image == 0).all(-1))


def test_labels_are_the_digits():
    shades = np.arange(10, dtype=np.uint8)
    digits = (25 * shades + 25)[:, None, None, None].repeat(28, 1).repeat(28, 2)
    made = scenes.paste_digits(50, 60, (digits, shades), BLACK, seed=0)
    seen = set()
    for image, boxes, labels in zip(*made.values(), strict=True):
        for (left, top, _, _), label in zip(boxes.astype(int), labels, strict=True):
            if label >= 0:
                ink = image[top, left].astype(float) / ((25 * label + 25) / 255)
                assert (ink >= 150).all()
                assert (ink <= 256).all()
                seen.add(label)
    assert seen == set(range(10))


def test_same_seed_same_scenes():
    first, again, other = (
        scenes.paste_digits(4, 64, WHITE_DIGITS, BLACK, seed=seed) for seed in (1, 1, 2)
    )
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
        assert (array != other[name]).any()


def test_photographs_come_with_the_packages(monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.setattr(socket, "socket", None)
    photographs = scenes.load_photographs()
    assert len(photographs) == 7
    for photograph in photographs:
        assert photograph.dtype == np.uint8
        assert photograph.shape[2] == 3
        assert min(photograph.shape[:2]) >= 150
        assert photograph.std() > 20
        assert (photograph[..., 0] != photograph[..., 2]).mean() > 0.5  # in colour
