"""Trains a small language model from slow storage, without echoing and with it.

The text is the Python standard library's own source code, some files of which are held out; the
measure is bits per byte on those. The model is a decoder of KerasHub's layers (keras_nlp.layers
are the same ones). A local HTTP server of limited bandwidth stands for storage across a network.

    python language_model.py --backend jax

A reader fetches a shard of text and tokenizes it. Behind that the echo repeats its windows of
tokens, and a shuffle buffer mixes them. All copies of a window are alike, as text has no flips and
shifts; an echoed window is therefore worth less than an echoed image, and others found that for a
small language model reuse saves data but no time (arXiv 2609.13922). See for yourself.

Needs keras-echo[examples] and a backend. Takes less than three minutes on two cores.
"""

import argparse
import contextlib
import math
import os
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, backend = parser.add_argument, os.environ.get("KERAS_BACKEND", "jax")
    add("--backend", choices=("tensorflow", "jax", "torch"), default=backend)
    add("--dataset", choices=("python", "lm1b"), default="python", help="lm1b: a large model")
    add("--data", type=Path, metavar="DIR", help="read shards (lm1b: TFDS's data) from here")
    add("--slowdown", type=float, default=3.0, help="R of the simulated storage")
    add("--log-dir", type=Path, default=Path("language_model_logs"), metavar="DIR")
    add("--quick", action="store_true", help="a few steps of everything")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    OPTIONS = parse()
    os.environ["KERAS_BACKEND"] = OPTIONS.backend  # Keras reads it when it is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_hub
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import keras_echo
from keras_echo.demo.comparison.plot import plot
from keras_echo.demo.comparison.recorder import Recorder, measure_step
from keras_echo.demo.comparison.table import Goal, Run, table
from keras_echo.demo.data.shards import RemoteShards, shard_name, write_shards
from keras_echo.demo.slow_store.store import serve
from keras_echo.tensorboard.event_file import EventWriter

SEED = 0
PADDING = 0  # the number of a token that no text contains
MAX_FACTOR = 4.0  # what text gains from more is little (arXiv 2305.16264), and here it harms
WINDOW_BYTES = 176  # of Python are about the 65 tokens that the model is shown and asked for


@dataclass(frozen=True)
class Settings:
    """The size of everything."""

    goal: Goal
    vocabulary: int
    tokens: int  # in a window
    width: int
    num_heads: int
    num_layers: int
    batch_size: int
    learning_rate: float
    num_steps: int
    steps_per_epoch: int
    shuffle_buffer: int  # windows
    num_validation: int  # windows
    num_files: int | None = None


PYTHON = Settings(
    goal=Goal("bits per byte", 2.20, is_loss=True),
    vocabulary=1024,
    tokens=64,
    width=96,
    num_heads=4,
    num_layers=1,
    batch_size=32,
    learning_rate=7e-3,
    num_steps=600,
    steps_per_epoch=25,
    shuffle_buffer=256,
    num_validation=128,
)
QUICK = replace(PYTHON, width=16, batch_size=16, num_steps=50, num_files=40)
LM1B = Settings(  # the decoder of the smallest GPT-2
    goal=Goal("bits per byte", 1.0, is_loss=True),
    vocabulary=32_768,
    tokens=128,
    width=768,
    num_heads=12,
    num_layers=12,
    batch_size=128,
    learning_rate=6e-4,
    num_steps=100_000,
    steps_per_epoch=1_000,
    shuffle_buffer=8_192,
    num_validation=1_024,
)


class Corpus(NamedTuple):
    """A source of batches to train on, and a batch to validate on."""

    source: keras.utils.PyDataset | Callable[[], Iterator]
    tokenizer: Tokenizer
    validation: tuple[np.ndarray, np.ndarray]

    @property
    def bytes_per_token(self) -> float:
        """In the validation batch."""
        tokens = self.validation[1][self.validation[1] != PADDING].tolist()
        # They are spelled with one character for each byte.
        return sum(len(self.tokenizer.id_to_token(token)) for token in tokens) / len(tokens)


def trained_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    """Byte-pair encoding: the bytes, and the pairs of tokens that are most frequent."""
    byte_level = pre_tokenizers.ByteLevel
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>"],  # the first one, PADDING
        initial_alphabet=byte_level.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def as_batch(tokenizer: Tokenizer, texts: list[str], num: int) -> tuple[np.ndarray, np.ndarray]:
    """The first tokens of each text and those that follow them: two (len(texts), num) int32."""
    tokens = np.full((len(texts), num + 1), PADDING, np.int32)
    for row, encoding in zip(tokens, tokenizer.encode_batch(texts), strict=True):
        row[: len(encoding.ids)] = encoding.ids[: num + 1]
    return tokens[:, :-1], tokens[:, 1:]


def python_windows(num_files: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Cuts the standard library's files, but for tests and tables, into windows of text.

    Returns:
        The windows to validate on, of 5 % of the files, and those to train on, both in random
        order, (num, WINDOW_BYTES) uint8.
    """
    root, random = Path(sysconfig.get_path("stdlib")), np.random.default_rng(SEED)
    others = {"site-packages", "dist-packages", "test", "tests", "encodings", "pydoc_data"}
    files = [file for file in sorted(root.rglob("*.py")) if not others & {*file.parts}]
    texts = [files[i].read_bytes() for i in random.permutation(len(files))[:num_files]]

    def windows(part: list[bytes]) -> np.ndarray:
        text = np.frombuffer(b"".join(part), np.uint8)
        size = len(text) // WINDOW_BYTES * WINDOW_BYTES
        return random.permutation(text[:size].reshape(-1, WINDOW_BYTES))

    # Whole files are held out: windows of one file have much in common.
    return windows(texts[: len(texts) // 20]), windows(texts[len(texts) // 20 :])


def as_texts(windows: np.ndarray) -> list[str]:
    """The text of windows; a character that a cut went through is dropped."""
    return [window.tobytes().decode("utf-8", "ignore") for window in windows]


@contextlib.contextmanager
def python_corpus(settings: Settings, options: argparse.Namespace) -> Iterator[Corpus]:
    """The standard library's sources as shards of text, in storage that is slow."""
    held_out, training = python_windows(settings.num_files)
    tokenizer = trained_tokenizer(as_texts(training[:20_000]), settings.vocabulary)

    def decode(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return as_batch(tokenizer, as_texts(arrays["text"]), settings.tokens)

    validation = decode({"text": held_out[: settings.num_validation]})
    batch = decode({"text": training[: settings.batch_size]})
    step_seconds = measure_step(built_model(settings), batch, 60)
    with tempfile.TemporaryDirectory() as temporary:
        # A directory that has no shards yet gets some.
        directory = options.data or Path(temporary)
        num_shards = len([*directory.glob("*.safetensors")]) or write_shards(
            directory, {"text": training}, settings.batch_size
        )
        slow = (directory / shard_name(0)).stat().st_size / (options.slowdown * step_seconds)
        with serve(directory, 1e12 if options.data else slow) as url:
            source = RemoteShards(url, num_shards, decode)
            yield Corpus(source, tokenizer, validation)
            source.close()


@contextlib.contextmanager
def lm1b_corpus(settings: Settings, options: argparse.Namespace) -> Iterator[Corpus]:
    """The sentences of the One Billion Word Benchmark, wherever they lie; not run by us."""
    import tensorflow_datasets as tfds  # for the full size only

    def texts(split: str, num: int) -> Iterator[list[str]]:
        ds = tfds.load("lm1b", split=split, data_dir=options.data, shuffle_files=split == "train")
        for rows in tfds.as_numpy(ds.batch(num)):
            yield [text.decode() for text in rows["text"]]

    tokenizer = trained_tokenizer(next(texts("train[:1%]", 100_000)), settings.vocabulary)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for sentences in texts("train", settings.batch_size):
            yield as_batch(tokenizer, sentences, settings.tokens)

    sentences = next(texts("test", settings.num_validation))
    yield Corpus(batches, tokenizer, as_batch(tokenizer, sentences, settings.tokens))


def built_model(settings: Settings) -> keras.Model:
    """A decoder, the same one each time. It is a plain Keras model, so `fit` takes a PyDataset."""
    keras.utils.set_random_seed(SEED)
    embedding = keras_hub.layers.TokenAndPositionEmbedding(
        settings.vocabulary,
        settings.tokens,
        settings.width,
        tie_weights=False,
        # The default is so small beside what the layers add that training would start slowly.
        embeddings_initializer=keras.initializers.RandomNormal(0.2),
    )
    tokens = keras.Input((settings.tokens,), dtype="int32")
    x = embedding(tokens)
    for _ in range(settings.num_layers):
        x = keras_hub.layers.TransformerDecoder(
            4 * settings.width, settings.num_heads, activation="gelu", normalize_first=True
        )(x)
    x = keras.layers.LayerNormalization()(x)
    model = keras.Model(tokens, embedding.token_embedding(x, reverse=True))
    # It counts optimizer steps, as epochs do: echoing leaves the schedule as it is.
    warmup, decay = settings.num_steps // 10, settings.num_steps * 9 // 10
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, decay, warmup_target=settings.learning_rate, warmup_steps=warmup
    )
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=0.1, clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=PADDING),
    )
    return model


def train(
    name: str, corpus: Corpus, settings: Settings, log_dir: Path, *, adapt: bool
) -> tuple[Run, float]:
    """One run, from e = 1 on; returns also R, as the callback saw it last."""
    logs = log_dir / name.replace(" ", "_")
    bits_per_nat = 1 / math.log(2) / corpus.bytes_per_token  # a byte's bits, of a token's loss
    with (
        EventWriter(logs) as writer,
        keras_echo.EchoingPyDataset(
            corpus.source,
            echo="example",
            # A buffer of one batch keeps the shards' order, which is random: no copies to part.
            shuffle_buffer=settings.shuffle_buffer if adapt else settings.batch_size,
            steps_per_epoch=settings.steps_per_epoch,
            seed=SEED,
        ) as dataset,
    ):
        callback = keras_echo.DataEchoCallback(
            dataset, logs / "keras_echo", max_factor=MAX_FACTOR, adapt=adapt
        )
        recorder = Recorder(
            name, settings.goal, dataset, lambda _, logs: logs["val_loss"] * bits_per_nat, writer
        )
        built_model(settings).fit(
            dataset,
            epochs=settings.num_steps // settings.steps_per_epoch,
            validation_data=corpus.validation,
            validation_batch_size=128,  # Keras averages over batches: one, or several alike
            verbose=0,
            callbacks=[callback, recorder],
        )
        ratios = [decision.ratio for decision in callback.decisions]
        return recorder.run(callback), ratios[-1] if ratios else math.nan


def main(options: argparse.Namespace) -> None:
    """Trains twice, prints the table, draws the plot."""
    settings = LM1B if options.dataset == "lm1b" else QUICK if options.quick else PYTHON
    open_corpus = lm1b_corpus if options.dataset == "lm1b" else python_corpus
    logs = options.log_dir
    with open_corpus(settings, options) as corpus:
        base, ratio = train("without echoing", corpus, settings, logs, adapt=False)
        echoed, _ = train("adaptive echoing", corpus, settings, logs, adapt=True)
    plot([base, echoed], settings.goal, logs / "bits_per_byte.png")
    print(f"\n{table([base, echoed], settings.goal, ratio)}\n")
    print(f"Plot: {logs}/bits_per_byte.png\nTensorBoard: tensorboard --logdir {logs}")


if __name__ == "__main__":
    main(OPTIONS)
