"""The language models: a causal transformer on bytes, and two corpora that ship with Python."""

from __future__ import annotations

import ast
import math
import sysconfig
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers

from study.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Iterator

WINDOW = 32  # bytes in an example
VOCABULARY = 128  # ASCII
WIDTH = 32
VALIDATION_WINDOWS = 128
HELD_OUT_EVERY = 10  # every tenth file is held out
MOST_BYTES = 4_000_000  # of a corpus


def sources() -> Iterator[tuple[str, str]]:
    """The standard library's modules, by their names, sorted: ASCII files alone, no tests."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if {"site-packages", "test", "tests", "idle_test", "pydoc_data"}.isdisjoint(name.parts):
            content = path.read_bytes()
            if content.isascii():
                yield str(name), content.decode("ascii")


def prose() -> Iterator[tuple[str, str]]:
    """English: the language reference's topics, and the docstrings of each module."""
    from pydoc_data import topics

    for name, text in sorted(topics.topics.items()):
        yield f"topic {name}", text
    for name, text in sources():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sources that aren't ours
            try:
                tree = ast.parse(text)
            except SyntaxError:
                continue
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)]
        if found := "\n\n".join(filter(None, texts)):
            yield name, found


def windows(corpus: Iterator[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Stretches of text for training and, from files that are held out, for validation.

    Returns:
        Twice uint8 (num, WINDOW + 1).
    """
    files = list(corpus)
    held_out = files[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    rest = [file for number, file in enumerate(files) if (number + 1) % HELD_OUT_EVERY]
    validation = _windows(held_out)
    chosen = np.random.default_rng(0).permutation(len(validation))[:VALIDATION_WINDOWS]
    return _windows(rest), validation[chosen]


def language_model(train: np.ndarray, validation: np.ndarray) -> Workload:
    """Next-byte prediction from `windows`; quality: bits per byte on held-out files.

    x: int32 (num, WINDOW) bytes; y: the bytes that follow each.
    """
    train, validation = train.astype(np.int32), validation.astype(np.int32)
    targets = validation[:, 1:]

    def bits_per_byte(logits: np.ndarray) -> float:
        scaled = logits - logits.max(-1, keepdims=True)
        log_sum = np.log(np.exp(scaled).sum(-1))
        chosen = np.take_along_axis(scaled, targets[..., None], -1)[..., 0]
        bits = float((log_sum - chosen).mean()) / math.log(2)
        return bits if math.isfinite(bits) else 8.0  # as if nothing were known

    return Workload(
        train=(train[:, :-1], train[:, 1:]),
        validation=validation[:, :-1],
        augment=None,
        model=_transformer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        score=bits_per_byte,
    )


def _windows(files: list[tuple[str, str]]) -> np.ndarray:
    """Non-overlapping stretches of WINDOW + 1 bytes, none across two files."""
    stretches = []
    for _, text in files:
        content = np.frombuffer(text.encode("ascii", "replace"), np.uint8)
        num = len(content) // (WINDOW + 1)
        stretches.append(content[: num * (WINDOW + 1)].reshape(num, WINDOW + 1))
    every = np.concatenate(stretches)
    order = np.random.default_rng(0).permutation(len(every))[: MOST_BYTES // (WINDOW + 1)]
    return every[order]


def _transformer() -> Any:
    """One pre-norm decoder layer with random positions, which stay and are always the same."""
    tokens = keras.Input((WINDOW,), dtype="int32")
    positions = np.random.default_rng(0).uniform(-0.05, 0.05, (WINDOW, WIDTH)).astype("float32")
    x = layers.Embedding(VOCABULARY, WIDTH)(tokens) + positions
    normed = layers.LayerNormalization()(x)
    attention = layers.MultiHeadAttention(2, WIDTH // 2, flash_attention=False)
    x = x + attention(normed, normed, use_causal_mask=True)
    hidden = layers.Dense(4 * WIDTH, activation="relu")(layers.LayerNormalization()(x))
    x = x + layers.Dense(WIDTH)(hidden)
    return keras.Model(tokens, layers.Dense(VOCABULARY)(layers.LayerNormalization()(x)))
