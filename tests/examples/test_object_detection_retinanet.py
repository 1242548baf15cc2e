"""The RetinaNet example: a stranger's copy runs, and its data and models are what it says."""

import dataclasses
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

SCRIPT = Path(__file__).parents[2] / "examples" / "object_detection_retinanet.py"
LIBRARIES = ("keras_hub", "keras_cv")
for package in ("skimage", "pycocotools"):
    pytest.importorskip(package)


@pytest.mark.timeout(300)
def test_a_copy_runs_anywhere(tmp_path, run_copy, library):
    told = run_copy("--library", library, "--log-dir", "logs")
    assert f"Backend {keras.backend.backend()}: a training step takes" in told
    rows = re.findall(r"^(without|adaptive) echoing +([\d.]+)", told, re.MULTILINE)
    assert [name for name, _ in rows] == ["without", "adaptive"]
    assert float(rows[0][1]) == 1.0
    logs = tmp_path / "logs"
    assert (logs / "average_precision.png").stat().st_size > 10_000
    for run in ("without_echoing", "adaptive_echoing"):
        assert list((logs / run).glob("events.out.tfevents.*"))
        assert list((logs / run / "keras_echo").rglob("*.xplane.pb"))


def squares(rng, num, side):
    """Black images, each with a white square and its box, and a box that is padding."""
    images = np.zeros((num, side, side, 3), np.uint8)
    boxes = np.full((num, 2, 4), -1, np.float32)
    for image, box in zip(images, boxes[:, 0], strict=True):
        left, top = rng.integers(side - 10, size=2)
        image[top : top + 10, left : left + 10] = 255
        box[:] = left, top, left + 10, top + 10
    labels = np.tile(np.array([3, -1], np.float32), (num, 1))
    return images, {"boxes": boxes, "labels": labels}


@given(seed=st.integers(0, 2**32), flips=st.booleans())
def test_boxes_move_with_what_they_show(script, seed, flips):
    rng = np.random.default_rng(seed)
    augment = script.flip_crop_and_colour if flips else script.crop_and_colour
    images, targets = augment(squares(rng, 6, 72), rng, 64)
    assert (images.shape, images.dtype) == ((6, 64, 64, 3), np.float32)
    assert 0 <= images.min() <= images.max() <= 1
    assert targets["boxes"].dtype == targets["labels"].dtype == np.float32
    for image, boxes, labels in zip(images, *targets.values(), strict=True):
        is_there = image.max(-1) > 0.5
        assert labels[1] == -1
        assert (boxes[1] == -1).all()
        if is_there.sum() < 50:  # less than half of it
            assert labels[0] == -1
            assert (boxes[0] == -1).all()
        else:
            rows, columns = np.nonzero(is_there)
            assert labels[0] == 3
            assert boxes[0].tolist() == [
                columns.min(),
                rows.min(),
                columns.max() + 1,
                rows.max() + 1,
            ]


def test_each_copy_is_another_one(script):
    batch = squares(np.random.default_rng(0), 40, 72)
    batch = tuple(keras.tree.map_structure(lambda array: array[:1].repeat(40, 0), batch))
    for augment in (script.crop_and_colour, script.flip_crop_and_colour):
        rng = np.random.default_rng(1)
        images, targets = augment(keras.tree.map_structure(np.copy, batch), rng, 64)
        assert len({image.tobytes() for image in images}) == 40
        assert len(np.unique(targets["boxes"][:, 0], axis=0)) > 20


def test_half_are_mirrored(script):
    images = np.zeros((200, 64, 64, 3), np.uint8)
    images[:, :, :32] = 200
    targets = {"boxes": np.tile([0.0, 0, 32, 64], (200, 1, 1)), "labels": np.ones((200, 1))}
    _, targets = script.flip_crop_and_colour((images, targets), np.random.default_rng(0), 64)
    assert 70 < (targets["boxes"][:, 0, 0] == 32).sum() < 130


def test_a_more_certain_box_hides_those_below_it(script):
    boxes = np.array(
        [[[0, 0, 20, 20], [40, 40, 60, 60], [2, 0, 22, 20], [15, 0, 35, 20]]], "float32"
    )
    logits = np.array([[[3, 0], [0, 1], [-1, 2], [1, 0]]], "float32")
    guesses = script.BestBoxes()(boxes, logits)
    boxes_of, labels, confidence = (
        keras.ops.convert_to_numpy(guesses[name])[0] for name in ("boxes", "labels", "confidence")
    )
    kept = {
        tuple(box.tolist()): (int(label), round(float(score), 4))
        for box, label, score in zip(boxes_of, labels, confidence, strict=True)
        if score > 0
    }
    assert kept == {
        (0, 0, 20, 20): (0, 0.9526),
        (40, 40, 60, 60): (1, 0.7311),
        (15, 0, 35, 20): (0, 0.7311),
    }


@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore:`build")  # KerasCV's own, with Keras 3.15; both
@pytest.mark.filterwarnings(r"ignore:[\s\S]*structure of `inputs`")
@pytest.mark.parametrize("library", LIBRARIES)
def test_models_begin_with_background_and_bear_empty_images(script, library):
    pytest.importorskip(library)
    model = script.build_model(script.DIGITS, library)
    rng = np.random.default_rng(0)
    images, targets = script.augmentation(script.DIGITS, library)(squares(rng, 4, 72), rng)
    outputs = model(images)
    logits = outputs["cls_logits" if library == "keras_hub" else "classification"]
    shares = 1 / (1 + np.exp(-keras.ops.convert_to_numpy(logits)))
    assert shares.shape == (4, 8 * 8 * 2, 10)
    assert np.median(shares) == pytest.approx(0.01, rel=0.5)
    # No box at all in one image; padding before the boxes in another.
    classes = script.LIBRARIES[library][1]
    for index in ([0, 0], [0, 1], [1, 0]):
        targets["boxes"][index[0], index[1]] = targets[classes][index[0], index[1]] = -1
    targets["boxes"][1, 1], targets[classes][1, 1] = (20, 20, 40, 40), 5
    history = keras.Model.fit(model, images, targets, batch_size=4, epochs=3, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.fixture
def coco(script, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    def read(split, side):
        dataset = script.Coco(split, side, 2, str(tmp_path))
        dataset.examples = [_consistent(example) for example in dataset.examples]
        return dataset

    with tfds.testing.mock_data(num_examples=5):
        yield read


def _consistent(example):
    """Mocked features of boxes have different lengths, and corners come in any order."""
    num = min(map(len, example["objects"].values()))
    objects = {name: array[:num] for name, array in example["objects"].items()}
    corners = np.sort(objects["bbox"].reshape(num, 2, 2), axis=1)
    return {**example, "objects": {**objects, "bbox": corners.reshape(num, 4)}}


def test_coco_is_read_through_tensorflow_datasets(coco):
    for split in ("train", "validation"):
        dataset = coco(split, 96)
        batches = [dataset[i] for i in range(len(dataset))]
        assert [len(images) for images, _ in batches] == [2, 2, 1]
        for images, targets in batches:
            assert (images.shape[1:], images.dtype) == ((96, 96, 3), np.uint8)
            assert targets["boxes"].shape == (len(images), 100, 4)
            assert targets["labels"].shape == (len(images), 100)
            assert targets["labels"].max() < 80
            padding = targets["labels"] < 0
            assert (targets["boxes"][padding] == -1).all()
            assert (targets["boxes"][~padding] >= 0).all()
            assert (targets["boxes"][~padding] <= 96).all()
        assert any((targets["labels"] >= 0).any() for _, targets in batches)


def test_coco_boxes_are_scaled_with_their_images(script, coco):
    dataset = coco("train", 96)
    image = np.zeros((50, 200, 3), np.uint8)
    image[10:30, 100:180] = 255
    box = np.array([[10 / 50, 100 / 200, 30 / 50, 180 / 200], [0, 0, 1, 1]], np.float32)
    objects = {"bbox": box, "label": np.array([7, 8]), "is_crowd": np.array([False, True])}
    dataset.examples = [{"image": image, "objects": objects}]
    images, targets = dataset[0]
    np.testing.assert_allclose(targets["boxes"][0, 0], [48, 4.8, 86.4, 14.4], rtol=1e-5)
    assert targets["labels"][0, :2].tolist() == [7, -1]  # crowds are left out
    assert images[0, 6:13, 50:85].min() > 250
    assert images[0, 24:].max() == 0


@pytest.mark.timeout(240)
def test_coco_trains(script, coco, tmp_path, capsys):
    pytest.importorskip("keras_hub")
    task = dataclasses.replace(
        script.COCO, is_small=True, side=64, batch_size=2, num_steps=2, steps_per_epoch=2
    )
    options = script.parse(["--dataset", "coco", "--log-dir", str(tmp_path)])
    run = script.train(task, coco("train", 96), coco("validation", 64), options, adapt=True)
    assert run.curve[-1].steps == 2
    assert 0 <= run.curve[-1].value <= 1
    assert "adaptive echoing" in capsys.readouterr().out
