"""Trains a ResNet on images that arrive slowly: without echoing, then with `DataEchoCallback`.

    pip install "keras-echo[examples]"  # and a backend
    python image_classification_resnet.py --backend jax --library keras_hub

Batches of real handwritten digits lie behind a server of limited bandwidth: reading one takes
`--slowdown` times as long as training on it. Both runs have the same model, seed, learning rates
and number of optimizer steps; the echoed one needs fewer fresh images for them.
"""

import argparse
import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, backend = parser.add_argument, os.environ.get("KERAS_BACKEND", "jax")
    add("--backend", choices=("tensorflow", "jax", "torch"), default=backend)
    add("--library", choices=("keras_hub", "keras_cv"), default="keras_hub")
    add("--dataset", choices=("digits", "imagenet2012"), default="digits")
    add("--data", metavar="DIR", help="shards of your own, or the data of TensorFlow Datasets")
    add("--slowdown", type=float, default=3.0, help="R of the simulated server")
    add("--log-dir", type=Path, default=Path("resnet_logs"))
    add("--quick", action="store_true", help="a few steps of everything")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    OPTIONS = parse()
    os.environ["KERAS_BACKEND"] = OPTIONS.backend  # Keras reads it when it is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import load_file

import keras_echo
from keras_echo.demo.comparison.plot import plot
from keras_echo.demo.comparison.recorder import Recorder, measure_read, measure_step
from keras_echo.demo.comparison.table import Goal, Run, table
from keras_echo.demo.data.digits import load_digits
from keras_echo.demo.data.shards import RemoteShards, write_shards
from keras_echo.demo.slow_store.store import serve
from keras_echo.tensorboard.event_file import EventWriter

SEED = 0
Batch = tuple[np.ndarray, np.ndarray]  # images (batch, height, width, channels) uint8, labels int32


# Augmentation happens behind the echo, so that every copy of an image is another one. `rng` belongs
# to the copy: the same seed gives the same training, however many threads augment. The arrays are
# the copy's own too, and may be changed in place.


def turn_and_shift(batch: Batch, rng: np.random.Generator) -> Batch:
    """Turns each digit by up to 10 degrees and moves it by up to two pixels."""
    images, labels = batch
    for image in images[..., 0]:
        image[:] = Image.fromarray(image).rotate(
            rng.uniform(-10, 10), Image.Resampling.BILINEAR, translate=tuple(rng.integers(-2, 3, 2))
        )
    return images, labels


def crop_and_flip(batch: Batch, rng: np.random.Generator, size: int = 224) -> Batch:
    """Scales a random part of each photograph to `size`, and mirrors half of them.

    The part has 8 to 100 % of the area and an aspect ratio of 3/4 to 4/3, as usual for ImageNet.
    """
    images, labels = batch
    whole = images.shape[1]
    crops = np.empty((len(images), size, size, 3), images.dtype)
    for image, crop in zip(images, crops, strict=True):
        area, aspect = rng.uniform(0.08, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        part = np.minimum(1, np.sqrt([area * aspect, area / aspect])) * whole  # width, height
        corner = rng.uniform(0, whole - part)
        box = (*corner, *(corner + part))
        pixels = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box)
        crop[:] = ImageOps.mirror(pixels) if rng.random() < 0.5 else pixels
    return crops, labels


@dataclasses.dataclass(frozen=True)
class Task:
    """What training on digits and training on ImageNet differ in."""

    image_shape: tuple[int, int, int]
    num_classes: int
    stages: tuple[tuple[int, int, int], ...]  # of the ResNet: filters, blocks, stride
    has_bottlenecks: bool
    augment: Callable[..., Batch]
    batch_size: int
    learning_rate: float
    weight_decay: float
    num_steps: int
    steps_per_epoch: int
    goal: Goal


DIGITS = Task(
    image_shape=(28, 28, 1),
    num_classes=10,
    stages=((64, 1, 1), (64, 1, 2)),
    has_bottlenecks=False,
    augment=turn_and_shift,
    batch_size=32,
    learning_rate=0.1,
    weight_decay=5e-4,
    num_steps=1000,
    steps_per_epoch=50,
    goal=Goal("validation accuracy", 0.975),
)
IMAGENET = Task(  # ResNet-50, 90 passes' worth of steps
    image_shape=(224, 224, 3),
    num_classes=1000,
    stages=((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)),
    has_bottlenecks=True,
    augment=crop_and_flip,
    batch_size=256,
    learning_rate=0.1,
    weight_decay=1e-4,
    num_steps=90 * 5004,
    steps_per_epoch=5004,
    goal=Goal("validation accuracy", 0.75),
)


def build_backbone(task: Task, library: str) -> keras.Model:
    """Makes the ResNet, with weights drawn at random."""
    filters, blocks, strides = map(list, zip(*task.stages, strict=True))
    if library == "keras_hub":
        import keras_hub

        kernel, block = (7, "bottleneck_block") if task.has_bottlenecks else (3, "basic_block")
        return keras_hub.models.ResNetBackbone(
            [64], [kernel], filters, blocks, strides, block, image_shape=task.image_shape
        )
    import keras_cv  # needs TensorFlow installed, whatever the backend

    backbone = keras_cv.models.ResNetBackbone(
        stackwise_filters=filters,
        stackwise_blocks=blocks,
        stackwise_strides=strides,
        include_rescaling=False,
        block_type="block" if task.has_bottlenecks else "basic_block",
        input_shape=task.image_shape,
    )
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # KerasCV's 0.99 averages over so many steps that for the first hundreds of them the
            # validation accuracy stays near chance, however well training goes.
            layer.momentum = 0.9
    return backbone


def build_model(task: Task, library: str) -> keras.Model:
    """Makes the same compiled model each time."""
    keras.utils.set_random_seed(SEED)
    model = keras.Sequential(
        [
            keras.Input(task.image_shape),
            keras.layers.Rescaling(1 / 255),  # here, so that bytes travel, not floats
            build_backbone(task, library),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(task.num_classes),
        ]
    )
    # In optimizer steps, echoed or not: an epoch has the same number of them at any factor.
    warmup = task.num_steps // 20
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, task.num_steps - warmup, warmup_target=task.learning_rate, warmup_steps=warmup
    )
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=task.weight_decay),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def as_batch(shard: dict[str, np.ndarray]) -> Batch:
    """Makes a batch of the arrays of a shard."""
    return shard["images"], shard["labels"].astype(np.int32)


class Shards(keras.utils.PyDataset):
    """Batch i is file i. This is where your own reading would go."""

    def __init__(self, files: list[Path], **options: int) -> None:
        super().__init__(**options)
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Batch:
        return as_batch(load_file(self.files[index]))


class ImageNet(keras.utils.PyDataset):
    """Reads a split of ImageNet 2012 at random places, through TensorFlow Datasets.

    All images get one size, which echoing examples needs: 256x256 to crop from, or the 224x224 in
    their middle.
    """

    def __init__(self, split: str, batch_size: int, data: str | None, **options: int) -> None:
        super().__init__(**options)
        import tensorflow_datasets as tfds

        self.examples = tfds.data_source("imagenet2012", split=split, data_dir=data)
        self.batch_size = batch_size
        self.margin = 0 if split == "train" else 16

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        first = index * self.batch_size
        rows = range(first, min(first + self.batch_size, len(self.examples)))
        examples = [self.examples[row] for row in rows]
        images = [
            ImageOps.fit(Image.fromarray(example["image"]), (256, 256), Image.Resampling.BILINEAR)
            for example in examples
        ]
        middle = slice(self.margin, 256 - self.margin)
        labels = np.array([example["label"] for example in examples], np.int32)
        return np.stack([np.asarray(image)[middle, middle] for image in images]), labels


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
            augment=task.augment,
            steps_per_epoch=task.steps_per_epoch,
            seed=SEED,
        ) as dataset,
    ):
        # Starts at factor 1; with adapt=False it stays there and only measures.
        echo = keras_echo.DataEchoCallback(dataset, logs / "keras_echo", adapt=adapt)
        progress = Recorder(
            name, task.goal, dataset, lambda model, logs: logs["val_accuracy"], writer
        )
        build_model(task, options.library).fit(
            dataset,
            epochs=task.num_steps // task.steps_per_epoch,
            validation_data=validation,
            verbose=0,
            callbacks=[echo, progress],
        )
        return progress.run(echo)


def main(options: argparse.Namespace) -> None:
    """Trains without and with echoing, and compares."""
    task = IMAGENET if options.dataset == "imagenet2012" else DIGITS
    if options.quick:
        task = dataclasses.replace(task, batch_size=8, num_steps=60, steps_per_epoch=30)
    options.log_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if options.dataset == "imagenet2012":
            source = ImageNet("train", task.batch_size, options.data, workers=16)
            validation = ImageNet("validation", task.batch_size, options.data, workers=16)
        else:
            directory = options.data
            if directory is None:
                directory = stack.enter_context(tempfile.TemporaryDirectory())
                images, labels = load_digits(seed=SEED)
                num = 20 * task.batch_size if options.quick else len(images)
                digits = {"images": images[:num], "labels": labels[:num]}
                write_shards(directory, digits, task.batch_size)
            files = sorted(Path(directory).glob("*.safetensors"))
            num_training = len(files) * 4 // 5
            source = Shards(files[:num_training], workers=4)
            validation = Shards(files[num_training:])
        step_seconds = measure_step(build_model(task, options.library), validation[0], 60)
        if options.dataset == "digits" and options.data is None:
            bandwidth = files[0].stat().st_size / (options.slowdown * step_seconds)
            url = stack.enter_context(serve(directory, bandwidth))
            source = RemoteShards(url, num_training, as_batch)
        read_seconds = (
            measure_read(source, min(8, len(source) - 1)) / source.workers
        )  # so many are read at a time
        print(
            f"Backend {keras.backend.backend()}: a training step takes {1000 * step_seconds:.1f} "
            f"ms, reading a batch {1000 * read_seconds:.1f} ms."
        )
        runs = [train(task, source, validation, options, adapt=adapt) for adapt in (False, True)]
    picture = options.log_dir / "validation_accuracy.png"
    plot(runs, task.goal, picture)
    print(f"\n{table(runs, task.goal, read_seconds / step_seconds)}\n\nPlot: {picture}")
    print(f"TensorBoard: tensorboard --logdir {options.log_dir}")


if __name__ == "__main__":
    main(OPTIONS)
