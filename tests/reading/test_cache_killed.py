"""kill -9 at any time, and whatever else befalls files: no wrong batch is ever served."""

import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_echo import Cache, EchoingPyDataset

LENGTH = 40
PLENTY = 10**9

# As a dataset's readers do, without Keras, which takes seconds to import.
WRITER = f"""
import sys, threading
from pathlib import Path
import numpy as np
from keras_echo.reading.cache_directory import InFiles

def write(indices):
    for index in indices:
        x = np.random.default_rng(index).bytes(200_000)
        print(index, flush=True)
        files.keep(index, (np.frombuffer(x, "float16").reshape(100, 1000), np.full(100, index)))
        print(index, flush=True)

files = InFiles(Path(sys.argv[1]), {PLENTY}, {LENGTH}, "k")
order = np.random.default_rng(int(sys.argv[2])).permutation({LENGTH}).tolist()
for part in (order[::2], order[1::2]):
    threading.Thread(target=write, args=(part,)).start()
"""


def truth(index):
    x = np.random.default_rng(index).bytes(200_000)
    return np.frombuffer(x, "float16").reshape(100, 1000).copy(), np.full(100, index)


class Source(keras.utils.PyDataset):
    def __init__(self):
        super().__init__(workers=2)
        self.read = []

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        self.read.append(index)
        return truth(index)


def write_and_be_killed(folder, seed):
    draw = random.Random(seed)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(seed)], stdout=subprocess.PIPE
    ) as writer:
        for _ in range(draw.randint(1, 25)):
            writer.stdout.readline()
        for _ in range(draw.randint(0, 20_000)):
            pass  # into the middle of a write
        writer.send_signal(signal.SIGKILL)


def flip(path, draw):
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def damage(folder, draw):
    """In all ways; returns the indices of which no file may serve any more."""
    names = sorted(path.name for path in folder.glob("*.batch"))
    draw.shuffle(names)
    chosen = [folder / name for name in names[:9]]
    cut, zeroed, torn, flipped, flipped_early, swapped, other, longer, empty = chosen
    size = cut.stat().st_size
    os.truncate(cut, draw.randrange(size))
    zeroed.write_bytes(bytes(size))
    torn.write_bytes(torn.read_bytes()[: size // 2] + bytes(size - size // 2))
    flip(flipped, draw)
    flipped_early.write_bytes(bytes([flipped_early.read_bytes()[0] ^ 1]) + bytes(size - 1))
    kept = swapped.read_bytes()
    swapped.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    longer.write_bytes(longer.read_bytes() + b"\0")
    empty.write_bytes(b"")
    return {int(path.stem) for path in chosen}


def a_pass(dataset):
    """The batches of a pass by their index; each tells its own in y."""
    found = {}
    for number in range(LENGTH):
        x, y = (keras.ops.convert_to_numpy(part) for part in dataset[number])
        found[int(y[0])] = x, y
    return found


def assert_true(found):
    assert sorted(found) == list(range(LENGTH))
    for index, batch in found.items():
        for part, right in zip(batch, truth(index), strict=True):
            assert part.tobytes() == right.tobytes()


@pytest.mark.parametrize("seed", range(3))
def test_no_wrong_batch_after_kills_and_damages(tmp_path, seed):
    draw = random.Random(seed)
    for number in range(8):
        write_and_be_killed(tmp_path, 100 * seed + number)
    whole = {int(path.stem) for path in (tmp_path / "k").glob("*.batch")}
    assert len(whole) >= 10
    broken = damage(tmp_path / "k", draw)

    source = Source()
    cache = Cache(directory=tmp_path, directory_bytes=PLENTY, key="k")
    with (
        pytest.warns(RuntimeWarning, match="must be read as it was written") as warned,
        EchoingPyDataset(source, cache=cache, seed=seed) as dataset,
    ):
        assert_true(a_pass(dataset))
    assert len(warned) == 1
    # All that was whole was found, and nothing else.
    assert set(source.read) >= set(range(LENGTH)) - (whole - broken)
    assert set(source.read[:LENGTH]) & (whole - broken) == set()

    # What was damaged was written anew: nothing is to be read or warned of any more.
    source = Source()
    with (
        warnings.catch_warnings(action="error"),
        EchoingPyDataset(source, cache=cache, seed=seed) as dataset,
    ):
        assert_true(a_pass(dataset))
    assert source.read == []


def test_a_copy_of_the_directory_serves_as_well(tmp_path):
    cache = Cache(directory=tmp_path, directory_bytes=PLENTY, key="k")
    with EchoingPyDataset(Source(), cache=cache) as dataset:
        a_pass(dataset)
    shutil.copytree(tmp_path / "k", tmp_path / "copy")
    source = Source()
    cache = Cache(directory=tmp_path, directory_bytes=PLENTY, key="copy")
    with EchoingPyDataset(source, cache=cache) as dataset:
        assert_true(a_pass(dataset))
        assert dataset.stats().cache_hits >= LENGTH
    assert source.read == []
    assert not list(Path(tmp_path).rglob("*.tmp"))
