"""The ResNet example: a stranger's copy runs, and its data and models are what it says."""

import dataclasses
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.demo.data.shards import write_shards

SCRIPT = Path(__file__).parents[2] / "examples" / "image_classification_resnet.py"
LIBRARIES = ("keras_hub", "keras_cv")


def write_own_shards(directory):
    digits = {
        "images": np.random.default_rng(0).integers(256, size=(80, 28, 28, 1)).astype(np.uint8),
        "labels": np.arange(80, dtype=np.uint8) % 10,
    }
    assert write_shards(directory, digits, 8) == 10


@pytest.mark.timeout(300)
def test_a_copy_runs_anywhere(tmp_path, run_copy, library):
    write_own_shards(tmp_path / "mine")
    # One of the two reads from the slow server, the other from a directory.
    data = ["--data", "mine"] if library == "keras_cv" else []
    told = run_copy("--library", library, "--log-dir", "logs", *data)
    assert f"Backend {keras.backend.backend()}: a training step takes" in told
    rows = re.findall(r"^(without|adaptive) echoing +([\d.]+)", told, re.MULTILINE)
    assert [name for name, _ in rows] == ["without", "adaptive"]
    assert float(rows[0][1]) == 1.0
    assert "adapt=False" in told
    assert "   60 steps," in told
    logs = tmp_path / "logs"
    assert (logs / "validation_accuracy.png").stat().st_size > 10_000
    for run in ("without_echoing", "adaptive_echoing"):
        assert list((logs / run).glob("events.out.tfevents.*"))
        assert list((logs / run / "keras_echo").rglob("*.xplane.pb"))


@given(seed=st.integers(0, 2**32))
def test_digits_are_turned_and_shifted_a_little(script, seed):
    images = np.zeros((4, 28, 28, 1), np.uint8)
    images[:, 11:17, 11:17] = 200
    before = images.sum()
    turned, labels = script.turn_and_shift(
        (images.copy(), np.arange(4)), np.random.default_rng(seed)
    )
    again, _ = script.turn_and_shift((images.copy(), np.arange(4)), np.random.default_rng(seed))
    np.testing.assert_array_equal(turned, again)
    assert (turned.shape, turned.dtype) == (images.shape, np.uint8)
    assert labels.tolist() == [0, 1, 2, 3]
    assert turned.sum() == pytest.approx(before, rel=0.03)
    rows, columns = np.nonzero(turned[..., 0].max(0))
    assert min(rows.min(), columns.min()) >= 11 - 2 - 3
    assert max(rows.max(), columns.max()) <= 16 + 2 + 3


def test_every_digit_is_turned_in_its_own_way(script):
    images = np.zeros((50, 28, 28, 1), np.uint8)
    images[:, 11:17, 11:17] = 200
    turned, _ = script.turn_and_shift((images, np.zeros(50)), np.random.default_rng(0))
    assert len({image.tobytes() for image in turned}) > 40


@given(seed=st.integers(0, 2**32))
def test_crops_are_parts_scaled_up(script, seed):
    rows, columns = np.mgrid[:256, :256].astype(np.uint8)
    images = np.stack([rows, columns, np.full_like(rows, 7)], axis=-1)[None].repeat(2, 0)
    crops, labels = script.crop_and_flip((images, np.arange(2)), np.random.default_rng(seed))
    assert (crops.shape, crops.dtype) == ((2, 224, 224, 3), np.uint8)
    assert labels.tolist() == [0, 1]
    assert (crops[..., 2] == 7).all()
    for crop in crops.astype(int):
        # Rows grow downwards; columns to the right or, in a mirror, to the left.
        assert (np.diff(crop[..., 0], axis=0) >= 0).all()
        steps = np.diff(crop[..., 1], axis=1)
        assert (steps >= 0).all() or (steps <= 0).all()
        height, width = np.ptp(crop[..., 0]) + 1, np.ptp(crop[..., 1]) + 1
        assert height * width >= 0.06 * 256**2
        # Parts that would stick out are cut, which can make the aspect more extreme.
        assert min(height, width) / max(height, width) >= 0.6 or max(height, width) >= 250


def test_half_of_the_crops_are_mirrored(script):
    columns = np.mgrid[:256, :256][1].astype(np.uint8)[None, ..., None].repeat(3, 3)
    crops, _ = script.crop_and_flip(
        (columns.repeat(200, 0), np.zeros(200)), np.random.default_rng(0)
    )
    mirrored = crops[:, 0, 0, 0] > crops[:, 0, -1, 0]
    assert 70 < mirrored.sum() < 130


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_full_size_is_a_resnet_50(script, library):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the same on each backend, and slow to make on the others")
    pytest.importorskip(library)
    backbone = script.build_backbone(script.IMAGENET, library)
    assert backbone.output_shape == (None, 7, 7, 2048)
    assert backbone.count_params() == 23_561_152


@pytest.mark.parametrize("library", LIBRARIES)
def test_batch_norms_follow_within_ten_steps(script, library):
    pytest.importorskip(library)
    backbone = script.build_backbone(script.DIGITS, library)
    assert backbone.output_shape == (None, 4, 4, 64)
    norms = [x for x in backbone.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} == {0.9}


def test_models_are_the_same_each_time(script):
    pytest.importorskip("keras_hub")
    first, second = (script.build_model(script.DIGITS, "keras_hub") for _ in range(2))
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def imagenet(script, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=7):
        yield lambda split: script.ImageNet(split, 4, str(tmp_path))


def test_imagenet_is_read_through_tensorflow_datasets(imagenet):
    for split, size in (("train", 256), ("validation", 224)):
        dataset = imagenet(split)
        batches = [dataset[i] for i in range(len(dataset))]
        assert [images.shape for images, _ in batches] == [
            (4, size, size, 3),
            (3, size, size, 3),
        ]
        for images, labels in batches:
            assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
            assert labels.min() >= 0
            assert labels.max() < 1000
            assert images.std() > 10


def test_validation_sees_the_middle(imagenet):
    whole, middle = imagenet("train")[0][0], imagenet("validation")[0][0]
    np.testing.assert_array_equal(whole[:, 16:-16, 16:-16], middle)


@pytest.mark.timeout(240)
def test_imagenet_trains(script, imagenet, tmp_path, capsys):
    pytest.importorskip("keras_hub")
    task = dataclasses.replace(
        script.IMAGENET,
        stages=((64, 1, 1),),
        has_bottlenecks=False,
        batch_size=4,
        num_steps=2,
        steps_per_epoch=2,
    )
    options = script.parse(["--dataset", "imagenet2012", "--log-dir", str(tmp_path)])
    run = script.train(task, imagenet("train"), imagenet("validation"), options, adapt=True)
    assert run.curve[-1].steps == 2
    assert 0 <= run.curve[-1].value <= 1
    assert "adaptive echoing" in capsys.readouterr().out
