"""Feeds damaged traces, states and cached batches to whatever reads them, and sees that each gives
a result or one of its documented errors: never another one, no hang, and no memory to speak of.

As a script, with as many of them as there is time for:

    KERAS_BACKEND=jax python tests/security/fuzz.py --count 1000000
"""

import argparse
import contextlib
import gzip
import io
import json
import random
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import keras
import numpy as np
from mutations import as_json, damaged, edited, set_fields
from xxhash import xxh3_64_digest, xxh3_64_intdigest

import keras_echo
from keras_echo.analyze_command import main_analyze
from keras_echo.profiling.traces import xspace
from keras_echo.reading import batch_file

MOST_SECONDS = 10.0  # of all processors; a busy machine takes twice as long
MOST_BYTES = 200 * 2**20
LABEL = {"index": 3, "length": 8}


class Traces:
    """What `keras-echo analyze` makes of them: an exit code, and nothing that a terminal obeys."""

    def __init__(self, folder):
        self._folder = folder
        self._seeds = [(path.name, path.read_bytes()) for path in record(folder)]
        self._spaces = [xspace.parse(data) for name, data in self._seeds if name.endswith(".pb")]
        texts = [gzip.decompress(data) for name, data in self._seeds if name.endswith(".gz")]
        self._trees = [json.loads(text) for text in texts]

    def try_one(self, draw):
        name, data = self._drawn(draw)
        path = self._folder / name
        path.write_bytes(data)
        told, complained = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(complained):
            code = main_analyze(path, as_json=draw.random() < 0.3)
        path.unlink()
        assert code == (2 if complained.getvalue() else 0)
        assert all(line.isprintable() for line in told.getvalue().split("\n"))
        assert complained.getvalue().removesuffix("\n").isprintable()

    def _drawn(self, draw):
        way = draw.randrange(3)
        if way == 0:
            chosen = draw.choice(self._spaces)
            space = xspace.new()
            space.CopyFrom(chosen)
            return "edited.xplane.pb", set_fields(draw, space)
        if way == 1 and self._trees:
            text = as_json(edited(draw, draw.choice(self._trees)))
            return "edited.pt.trace.json", text
        name, data = draw.choice(self._seeds)
        if name.endswith(".gz") and draw.random() < 0.5:
            data = gzip.decompress(data)
            return f"damaged-{name}", gzip.compress(damaged(draw, data, data), 1)
        return f"damaged-{name}", damaged(draw, data, draw.choice(self._seeds)[1])


class States:
    """What the dataset makes of them: it goes on, or says what is wrong, and is as it was."""

    def __init__(self):
        x = np.arange(80.0, dtype="float32").reshape(40, 2)
        self._datasets = [
            keras_echo.EchoingPyDataset(
                (x, x), echo=echo, echo_factor=2.5, batch_size=4, shuffle_buffer=buffer, seed=3
            )
            for echo, buffer in (("batch", 0), ("batch", 5), ("batch", "auto"), ("example", "auto"))
        ]
        self._saved = []
        for number, dataset in enumerate(self._datasets):
            for num_served in (0, 3, 20):
                for index in range(num_served):
                    dataset[index]
                self._saved.append((number, json.loads(json.dumps(dataset.state_dict()))))

    def try_one(self, draw):
        number, state = draw.choice(self._saved)
        dataset = self._datasets[number]
        if draw.random() < 0.8:
            state = edited(draw, state)
        else:
            text = json.dumps(state).encode()
            try:
                state = json.loads(damaged(draw, text, text))
            except (ValueError, RecursionError):
                return
        before = dataset.state_dict()
        try:
            dataset.load_state_dict(state)
        except ValueError as error:
            assert_form(error)
            assert dataset.state_dict() == before
            return
        try:
            for index in range(2):
                assert len(dataset[index]) == 2
        except ValueError as error:  # what only shows once the source is read
            assert_form(error)
        dataset.load_state_dict(self._saved[3 * number][1])

    def close(self):
        for dataset in self._datasets:
            dataset.close()


class CachedBatches:
    """What the cache makes of them: a batch, or word that the file is damaged."""

    def __init__(self, folder):
        self._path = folder / "3.batch"
        draw = np.random.default_rng(0)
        batch = {"x": draw.random((4, 3)), "i": draw.integers(9, size=4)}, (None, np.zeros((0, 2)))
        batch_file.Packed(batch, LABEL).write(self._path)
        self._whole = self._path.read_bytes()
        size = batch_file._PREFIX.size
        end = size + batch_file._PREFIX.unpack(self._whole[:size])[1]
        self._header, self._data = self._whole[size:end], self._whole[end:]

    def try_one(self, draw):
        if draw.random() < 0.3:
            data = damaged(draw, self._whole, self._whole)
        else:
            data = self._sealed(draw)
        self._path.write_bytes(data)
        with contextlib.suppress(batch_file.DamagedError):
            batch_file.read(self._path, LABEL)

    def _sealed(self, draw):
        """With checksums that fit, as somebody would write it who means harm."""
        header = as_json(edited(draw, json.loads(self._header)))
        if draw.random() < 0.2:
            header = damaged(draw, header, header)
        data = draw.choice((self._data, self._data[:5], b"", self._data * 9))
        pieces = xxh3_64_digest(data) if data else b""
        prefix = batch_file._PREFIX.pack(
            batch_file.MAGIC, len(header), xxh3_64_intdigest(header), xxh3_64_intdigest(pieces)
        )
        return prefix + header + data


def record(folder):
    """Trains for some steps and records them; returns the traces of the current Keras backend."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((64, 2), "float32")
    with keras_echo.EchoingPyDataset((x, x[:, :1]), batch_size=2, seed=0) as dataset:
        callback = keras_echo.DataEchoCallback(
            dataset, folder / "logs", warmup_steps=4, profile_steps=5, verbose=0
        )
        model.fit(dataset, epochs=2, verbose=0, callbacks=[callback])
    found = sorted((folder / "logs").rglob("*.xplane.pb"))[:2]
    if keras.backend.backend() == "torch":
        import torch

        with torch.profiler.profile() as profile:
            model.fit(x, x[:, :1], batch_size=32, verbose=0)
        # As one file, and without what is the machine's alone.
        profile.export_chrome_trace(str(folder / "torch.pt.trace.json.gz"))
        found.append(folder / "torch.pt.trace.json.gz")
    assert found
    return found


def assert_form(error):
    """The one form that every error has; see keras_echo/_messages.py."""
    assert " must " in str(error)
    assert "Received: " in str(error)
    assert str(error).isprintable()


def fuzz(targets, count, first=0):
    """Tries `count` mutations, by turns; the number of one is all that it takes to try it again.

    Returns:
        The most CPU seconds that one took, and the bytes by which memory has grown.
    """
    before, slowest = most_bytes_so_far(), 0.0
    for number in range(first, first + count):
        target = targets[number % len(targets)]
        began = time.process_time()
        try:
            target.try_one(random.Random(number))
        except BaseException as error:
            error.add_note(f"mutation {number} of {type(target).__name__}")
            raise
        seconds = time.process_time() - began
        slowest = max(slowest, seconds)
        grown = most_bytes_so_far() - before
        assert seconds < MOST_SECONDS, f"{number}: {seconds} s"
        assert grown < MOST_BYTES, f"{number}: {grown} bytes"
    return slowest, most_bytes_so_far() - before


def most_bytes_so_far():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("error")
    # What a state says of a batch that was read may be damaged: then training goes on, and is told.
    warnings.filterwarnings("ignore", "Batch .* must be the one that it was", RuntimeWarning)
    with tempfile.TemporaryDirectory() as folder:
        states = States()
        targets = [Traces(Path(folder)), states, CachedBatches(Path(folder))]
        seconds, grown = fuzz(targets, options.count, options.first)
        states.close()
    sys.stdout.write(
        f"{options.count} mutations on {keras.backend.backend()}: {seconds:.2f} s at most for one, "
        f"{grown / 2**20:.0f} MB more memory\n"
    )


if __name__ == "__main__":
    main()
