"""Trains a RetinaNet on images that arrive slowly: without echoing, then with `DataEchoCallback`.

    pip install "keras-echo[examples]"  # and a backend
    python object_detection_retinanet.py --backend jax --library keras_hub

Real handwritten digits are pasted onto photographs, and batches of them lie behind a server of
limited bandwidth: reading one takes `--slowdown` times as long as training on it. Both runs have
the same model, seed and learning rates, and end at the same average precision.
"""

import argparse
import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, backend = parser.add_argument, os.environ.get("KERAS_BACKEND", "jax")
    add("--backend", choices=("tensorflow", "jax", "torch"), default=backend)
    add("--library", choices=("keras_hub", "keras_cv"), default="keras_hub")
    add("--dataset", choices=("digits", "coco"), default="digits")
    add("--data", metavar="DIR", help="shards of your own, or the data of TensorFlow Datasets")
    add("--slowdown", type=float, default=3.0, help="R of the simulated server")
    add("--log-dir", type=Path, default=Path("retinanet_logs"))
    add("--quick", action="store_true", help="a few steps of everything")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    OPTIONS = parse()
    os.environ["KERAS_BACKEND"] = OPTIONS.backend  # Keras reads it when it is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image
from safetensors.numpy import load_file

import keras_echo
from keras_echo.demo.comparison.plot import plot
from keras_echo.demo.comparison.recorder import Recorder, measure_read, measure_step
from keras_echo.demo.comparison.table import Goal, Run, table
from keras_echo.demo.data.digits import NUM_TRAINING, load_digits
from keras_echo.demo.data.precision import Precision, average_precision
from keras_echo.demo.data.scenes import load_photographs, paste_digits
from keras_echo.demo.data.shards import RemoteShards, write_shards
from keras_echo.demo.slow_store.store import serve
from keras_echo.tensorboard.event_file import EventWriter

SEED = 0
# Images (batch, side, side, 3) uint8; "boxes" (batch, most, 4) as left, top, right, bottom in
# pixels and "labels" (batch, most), both float32. Where an image has fewer boxes, -1 stands.
Batch = tuple[np.ndarray, dict[str, np.ndarray]]


# Augmentation happens behind the echo, so that every copy of an image is another one.


def crop_and_colour(batch: Batch, rng: np.random.Generator, side: int) -> Batch:
    """Cuts out a part of each image at random, and changes its colours.

    Boxes move along. Those of which less than half is left become padding.

    Returns:
        The images, of the given side, as float32 in 0..1, and their boxes.
    """
    images, targets = batch
    num, whole = images.shape[:2]
    corners = rng.integers(whole - side + 1, size=(num, 2))  # left, top
    parts = zip(images, corners, strict=True)
    images = np.stack([image[y : y + side, x : x + side] for image, (x, y) in parts])
    moved = targets["boxes"] - np.tile(corners, 2)[:, None]
    boxes = moved.clip(0, side)
    there = (targets["labels"] >= 0) & (_areas(boxes) >= _areas(moved) / 2) & (_areas(moved) > 0)
    targets = {
        "boxes": np.where(there[..., None], boxes, -1).astype(np.float32),
        "labels": np.where(there, targets["labels"], -1).astype(np.float32),
    }
    tint = rng.uniform(0.8, 1.2, (num, 1, 1, 3))
    return (images / 255 * tint).clip(0, 1).astype(np.float32), targets


def flip_crop_and_colour(batch: Batch, rng: np.random.Generator, side: int) -> Batch:
    """Also mirrors half of the images. Not for digits: a mirrored 2 is no 2."""
    images, targets = batch
    mirrored = rng.random(len(images)) < 0.5
    left, top, right, bottom = np.moveaxis(targets["boxes"][mirrored], -1, 0)
    whole = images.shape[2]
    images[mirrored] = images[mirrored, :, ::-1]  # they are this copy's own
    targets["boxes"][mirrored] = np.stack([whole - right, top, whole - left, bottom], -1)
    return crop_and_colour((images, targets), rng, side)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


@dataclasses.dataclass(frozen=True)
class Task:
    """What training on digits and training on COCO differ in."""

    is_small: bool  # or a ResNet-50 that knows ImageNet
    side: int  # of the images that the model sees, in pixels
    margin: int  # by how much those that are read are larger, to crop from
    num_classes: int
    augment: Callable[..., Batch]
    batch_size: int
    learning_rate: float
    num_steps: int
    steps_per_epoch: int
    goal: Goal


DIGITS = Task(True, 64, 8, 10, crop_and_colour, 8, 3e-3, 500, 50, Goal("AP50", 0.7))
COCO = Task(False, 640, 64, 80, flip_crop_and_colour, 16, 1e-4, 90_000, 1000, Goal("AP50", 0.5))


def write_digits(directory: str, batch_size: int, num_training: int, num_validation: int) -> None:
    """Writes shards for training, then for validation: no digit and no photograph is in both."""
    photographs, (images, labels) = load_photographs(), load_digits(seed=SEED)
    known = images[:NUM_TRAINING], labels[:NUM_TRAINING]
    new = images[NUM_TRAINING:], labels[NUM_TRAINING:]
    side, whole = DIGITS.side, DIGITS.side + DIGITS.margin
    training = paste_digits(num_training, whole, known, photographs[:-2], seed=1)
    validation = paste_digits(num_validation, side, new, photographs[-2:], seed=2)
    write_shards(Path(directory, "train"), training, batch_size)
    write_shards(Path(directory, "validation"), validation, batch_size)


def as_batch(shard: dict[str, np.ndarray]) -> Batch:
    """Makes a batch of the arrays of a shard."""
    return shard["images"], {name: shard[name] for name in ("boxes", "labels")}


class Shards(keras.utils.PyDataset):
    """Batch i is file i. This is where your own reading would go."""

    def __init__(self, directory: Path, **options: int) -> None:
        super().__init__(**options)
        self.files = sorted(directory.glob("*.safetensors"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Batch:
        return as_batch(load_file(self.files[index]))


class Coco(keras.utils.PyDataset):
    """Reads a split of COCO 2017 at random places, through TensorFlow Datasets.

    Images are scaled to fit into a square, of which they take the left and upper part. Crowds, and
    boxes beyond the first 100, are left out.
    """

    def __init__(
        self, split: str, side: int, batch_size: int, data: str | None, **options: int
    ) -> None:
        super().__init__(**options)
        import tensorflow_datasets as tfds

        self.examples = tfds.data_source("coco/2017", split=split, data_dir=data)
        self.side, self.batch_size = side, batch_size

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        first = index * self.batch_size
        rows = range(first, min(first + self.batch_size, len(self.examples)))
        images = np.zeros((len(rows), self.side, self.side, 3), np.uint8)
        boxes = np.full((len(rows), 100, 4), -1, np.float32)
        labels = np.full((len(rows), 100), -1, np.float32)
        for i, row in enumerate(rows):
            example = self.examples[row]
            image, objects = Image.fromarray(example["image"]), example["objects"]
            scale = self.side / max(image.size)
            width, height = (max(1, round(scale * length)) for length in image.size)
            scaled = image.resize((width, height), Image.Resampling.BILINEAR)
            images[i, :height, :width] = np.asarray(scaled)
            chosen = np.flatnonzero(~objects["is_crowd"].astype(bool))[:100]
            top, left, bottom, right = objects["bbox"][chosen].T  # shares of height and width
            corners = (left * width, top * height, right * width, bottom * height)
            boxes[i, : len(chosen)] = np.stack(corners, axis=-1)
            labels[i, : len(chosen)] = objects["label"][chosen]
        return images, {"boxes": boxes, "labels": labels}


class BestBoxes(keras.layers.Layer):
    """Decides which of a RetinaNet's boxes count, on all backends alike.

    A box is dropped if it overlaps with one that is more certain, whether that one is dropped or
    not ("Fast NMS" in Bolya, Zhou, Xiao, Lee, *YOLACT*, arXiv 1904.02689).
    """

    bounding_box_format = "xyxy"

    def call(self, boxes: Any, logits: Any, **_: Any) -> dict[str, Any]:
        """Returns boxes (batch, num, 4), and the label and the confidence of each."""
        ops = keras.ops
        certain = ops.sigmoid(ops.max(logits, axis=-1))
        confidence, best = ops.top_k(certain, min(100, logits.shape[1]))
        boxes = ops.take_along_axis(boxes, best[..., None], axis=1)
        labels = ops.take_along_axis(ops.argmax(logits, axis=-1), best, axis=1)
        overlaps = keras.utils.bounding_boxes.compute_iou(boxes, boxes, "xyxy")
        kept = ops.max(ops.triu(overlaps, k=1), axis=1) <= 0.5
        return {
            "boxes": boxes,
            "labels": labels,
            "confidence": ops.where(kept, confidence, ops.zeros_like(confidence)),
        }


def keras_hub_retinanet(task: Task) -> keras.Model:
    """A RetinaNet of KerasHub."""
    import keras_hub

    models, images, anchors = keras_hub.models, keras.Input((task.side, task.side, 3)), None
    if task.is_small:
        resnet = models.ResNetBackbone([64], [3], [64, 64], [1, 1], [1, 2], "basic_block")
        pyramid = keras.Model(resnet.inputs, {"P3": resnet.pyramid_outputs["P3"]})
        smooth = keras.layers.Conv2D(64, 3, padding="same", activation="relu")
        backbone = keras.Model(images, {"P3": smooth(pyramid(images)["P3"])})
        anchors = keras_hub.layers.AnchorGenerator("xyxy", 3, 3, 2, [1.0], anchor_size=2.75)
    else:
        resnet = models.ResNetBackbone.from_preset("resnet_50_imagenet")
        pyramid = models.RetinaNetBackbone(resnet, min_level=3, max_level=7, use_p5=False)
        mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
        normalize = keras.layers.Normalization(mean=mean, variance=deviation**2)
        backbone = keras.Model(images, pyramid(normalize(images)))
    backbone.image_shape = images.shape[1:]
    backbone.min_level, backbone.max_level = 3, 3 if task.is_small else 7
    model = models.RetinaNetObjectDetector(
        backbone,
        task.num_classes,
        "xyxy",
        anchor_generator=anchors,
        pre_logits_num_conv_layers=1 if task.is_small else 4,
        prediction_decoder=BestBoxes(),
    )
    # Almost all anchors show background: the class head should begin with that. KerasHub 0.32 gives
    # this bias to the head of the boxes instead.
    for head, value in ((model.classification_head, -np.log(99)), (model.box_head, 0)):
        bias = head.prediction_layer.bias
        bias.assign(np.full(bias.shape, value))
    model.compile(_optimizer(task))
    return model


class FinestLevel(keras.layers.Layer):
    """A feature pyramid of 64 filters that keeps its finest level, for objects of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.lateral = [keras.layers.Conv2D(64, 1) for _ in range(3)]
        self.smooth = keras.layers.Conv2D(64, 3, padding="same", activation="relu")
        self.twice = keras.layers.UpSampling2D()

    def call(self, features: dict[str, Any]) -> list[Any]:
        """Adds coarser features to finer ones."""
        p3, p4, p5 = (
            conv(features[level])
            for conv, level in zip(self.lateral, ("P3", "P4", "P5"), strict=True)
        )
        return [self.smooth(p3 + self.twice(p4 + self.twice(p5)))]


def keras_cv_retinanet(task: Task) -> keras.Model:
    """A RetinaNet of KerasCV."""
    import keras_cv  # needs TensorFlow installed, whatever the backend

    parts: dict[str, Any] = {}
    if task.is_small:
        resnet = keras_cv.models.ResNetBackbone(
            stackwise_filters=[64, 64, 64, 64],
            stackwise_blocks=[1, 1, 1, 1],
            stackwise_strides=[1, 2, 2, 2],
            include_rescaling=False,
            block_type="basic_block",
            input_shape=(task.side, task.side, 3),
        )
        for layer in resnet.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.9  # with KerasCV's 0.99, validation lags hundreds of steps
        head = keras_cv.models.retinanet.PredictionHead
        prior = keras.initializers.Constant(-np.log(99))
        parts = {
            "feature_pyramid": FinestLevel(),
            "classification_head": head(2 * task.num_classes, prior, num_conv_layers=1),
            "box_head": head(2 * 4, keras.initializers.Zeros(), num_conv_layers=1),
            "anchor_generator": keras_cv.layers.AnchorGenerator(
                "xyxy", sizes=[22.0], scales=[1.0, 1.4], aspect_ratios=[1.0], strides=[8]
            ),
        }
    else:
        resnet = keras_cv.models.ResNetBackbone.from_preset(
            "resnet50_imagenet", include_rescaling=False
        )
    model = keras_cv.models.RetinaNet(
        resnet, task.num_classes, "xyxy", prediction_decoder=BestBoxes(), **parts
    )
    model.compile(box_loss="huber", classification_loss="focal", optimizer=_optimizer(task))
    return model


def _optimizer(task: Task) -> keras.optimizers.Optimizer:
    # In optimizer steps, echoed or not: an epoch has the same number of them at any factor.
    # Without a warm-up and close clipping, it is luck of the initial weights how well it goes.
    warmup = task.num_steps // 10
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, task.num_steps - warmup, warmup_target=task.learning_rate, warmup_steps=warmup
    )
    return keras.optimizers.Adam(schedule, clipnorm=1.0)


LIBRARIES = {  # how to make a model, and what the library calls the classes of the boxes
    "keras_hub": (keras_hub_retinanet, "labels"),
    "keras_cv": (keras_cv_retinanet, "classes"),
}


def build_model(task: Task, library: str) -> keras.Model:
    """Makes the same compiled model each time."""
    keras.utils.set_random_seed(SEED)
    return LIBRARIES[library][0](task)


def augmentation(task: Task, library: str) -> Callable[..., Batch]:
    """The task's augmentation, with its targets as the library wants them."""

    def augment(batch: Batch, rng: np.random.Generator) -> Batch:
        images, targets = task.augment(batch, rng, task.side)
        return images, {"boxes": targets["boxes"], LIBRARIES[library][1]: targets["labels"]}

    return augment


def evaluator(model: keras.Model, validation: Sequence[Batch]) -> Callable[..., Precision]:
    """Makes a function that returns the model's average precision."""
    # Without the model's own `predict`, which decodes boxes in ways that fail on some backends.
    heads = keras.Model(model.inputs[0], model.output)

    def evaluate() -> Precision:
        truth, found = [], []
        for i in range(len(validation)):
            images, targets = validation[i]
            images = keras.ops.convert_to_tensor((images / 255).astype(np.float32))
            guesses = keras.tree.map_structure(
                keras.ops.convert_to_tensor, heads.predict_on_batch(images)
            )
            boxes = model.decode_predictions(guesses, images)
            truth.append(targets)
            found.append({name: keras.ops.convert_to_numpy(boxes[name]) for name in boxes})
        return average_precision(*map(_joined, (truth, found)))

    return evaluate


def _joined(batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def train(
    task: Task, source: Any, validation: Any, options: argparse.Namespace, *, adapt: bool
) -> Run:
    """Trains until the target is reached or the steps are over."""
    name = "adaptive echoing" if adapt else "without echoing"
    logs = options.log_dir / name.replace(" ", "_")
    with (
        EventWriter(logs) as writer,
        keras_echo.EchoingPyDataset(
            source,
            echo="example",
            augment=augmentation(task, options.library),
            steps_per_epoch=task.steps_per_epoch,
            seed=SEED,
        ) as dataset,
    ):
        # Starts at factor 1; with adapt=False it stays there and only measures.
        echo = keras_echo.DataEchoCallback(dataset, logs / "keras_echo", adapt=adapt)
        model = build_model(task, options.library)
        evaluate = evaluator(model, validation)
        progress = Recorder(name, task.goal, dataset, lambda *_: evaluate().ap50, writer)
        keras.Model.fit(  # and not model.fit: that of KerasHub's tasks takes no PyDataset
            model,
            dataset,
            epochs=task.num_steps // task.steps_per_epoch,
            verbose=0,
            callbacks=[echo, progress],
        )
        print(f"{name:>18}: AP {evaluate().ap:.3f} over all overlaps")
        return progress.run(echo)


def main(options: argparse.Namespace) -> None:
    """Trains without and with echoing, and compares."""
    task = COCO if options.dataset == "coco" else DIGITS
    if options.quick:
        task = dataclasses.replace(task, batch_size=4, num_steps=50, steps_per_epoch=25)
    options.log_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if options.dataset == "coco":
            arguments = task.batch_size, options.data
            source = Coco("train", task.side + task.margin, *arguments, workers=16)
            validation = Coco("validation", task.side, *arguments)
        else:
            directory = options.data or stack.enter_context(tempfile.TemporaryDirectory())
            if options.data is None:
                write_digits(
                    directory, task.batch_size, *((80, 16) if options.quick else (2400, 128))
                )
            source = Shards(Path(directory, "train"), workers=4)
            validation = Shards(Path(directory, "validation"))
        batch = augmentation(task, options.library)(source[0], np.random.default_rng(SEED))
        step_seconds = measure_step(build_model(task, options.library), batch, 60)
        if options.dataset == "digits" and options.data is None:
            bandwidth = source.files[0].stat().st_size / (options.slowdown * step_seconds)
            url = stack.enter_context(serve(Path(directory, "train"), bandwidth))
            source = RemoteShards(url, len(source), as_batch)
        read_seconds = measure_read(source, 8) / source.workers  # so many are read at a time
        print(
            f"Backend {keras.backend.backend()}: a training step takes {1000 * step_seconds:.1f} "
            f"ms, reading a batch {1000 * read_seconds:.1f} ms."
        )
        runs = [train(task, source, validation, options, adapt=adapt) for adapt in (False, True)]
    picture = options.log_dir / "average_precision.png"
    plot(runs, task.goal, picture)
    print(f"\n{table(runs, task.goal, read_seconds / step_seconds)}\n\nPlot: {picture}")
    print(f"TensorBoard: tensorboard --logdir {options.log_dir}")


if __name__ == "__main__":
    main(OPTIONS)
