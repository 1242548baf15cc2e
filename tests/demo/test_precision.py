import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_echo.demo.data.precision import average_precision

pytest.importorskip("pycocotools")


def scene(*boxes, labels, **others):
    return {"boxes": np.array([boxes], float), "labels": np.array([labels], float)} | {
        name: np.array([values], float) for name, values in others.items()
    }


TRUTH = scene((0, 0, 20, 20), (30, 30, 50, 50), (-1, -1, -1, -1), labels=[0, 7, -1])


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), num=st.integers(1, 5))
def test_what_is_there_is_found(seed, num):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 100, (num, 4, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 50, (num, 4, 2))], axis=-1)
    labels = rng.integers(-1, 3, (num, 4)).astype(float)
    found = {"boxes": boxes, "labels": labels, "confidence": np.where(labels < 0, 0, 0.5)}
    expected = float((labels >= 0).any())
    assert average_precision({"boxes": boxes, "labels": labels}, found) == pytest.approx(
        (expected, expected)
    )


def test_the_first_box_and_the_first_class_count():
    found = scene((0, 0, 20, 20), labels=[0], confidence=[0.9])
    assert average_precision(TRUTH, found) == pytest.approx((0.5, 0.5))


def test_another_class_is_another_thing():
    found = scene((0, 0, 20, 20), (30, 30, 50, 50), labels=[7, 0], confidence=[0.9, 0.9])
    assert average_precision(TRUTH, found) == (0, 0)


def test_overlap_decides():
    # 20 x 20 moved by 4: 320 of 480 in common, two thirds, above four of the ten thresholds.
    found = scene((4, 0, 24, 20), (34, 30, 54, 50), labels=[0, 7], confidence=[0.9, 0.9])
    assert average_precision(TRUTH, found) == pytest.approx((0.4, 1.0))


@pytest.mark.parametrize(("confidence", "expected"), [(0.1, 1.0), (0.95, 0.75)])
def test_certain_errors_cost_more(confidence, expected):
    found = scene(
        (0, 0, 20, 20),
        (30, 30, 50, 50),
        (60, 60, 80, 80),
        labels=[0, 7, 7],
        confidence=[0.9, 0.9, confidence],
    )
    assert average_precision(TRUTH, found).ap50 == pytest.approx(expected)


def test_each_image_is_its_own():
    truth = {"boxes": np.array([[[0, 0, 9, 9]], [[-1] * 4]]), "labels": np.array([[3], [-1]])}
    found = {"boxes": np.array([[[-1] * 4], [[0, 0, 9, 9]]]), "labels": np.array([[3], [3]])}
    assert average_precision(truth, found | {"confidence": np.array([[0], [1]])}) == (0, 0)
    assert average_precision(truth, found | {"confidence": np.array([[0], [0]])}) == (0, 0)
