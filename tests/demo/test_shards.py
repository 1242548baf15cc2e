import pickle
import threading

import numpy as np
import pytest

from keras_echo.demo.data.shards import RemoteShards, shard_name, write_shards
from keras_echo.demo.slow_store.store import serve

ARRAYS = {
    "images": np.random.default_rng(0).integers(0, 256, (30, 5, 5, 3)).astype("uint8"),
    "boxes": np.random.default_rng(1).random((30, 2, 4)).astype("float32"),
    "labels": np.arange(30, dtype="int32"),
}


def decode(arrays):
    return arrays["images"], {"boxes": arrays["boxes"], "labels": arrays["labels"]}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shards") / "made"
    assert write_shards(directory, ARRAYS, 4) == 7
    return directory


@pytest.fixture
def shards(directory):
    with serve(directory, 1e9) as url:
        shards = RemoteShards(url, 7, decode)
        yield shards
        shards.close()


def test_files_have_one_size(directory):
    files = sorted(directory.iterdir())
    assert [file.name for file in files] == [shard_name(i) for i in range(7)]
    assert len({file.stat().st_size for file in files}) == 1


def test_what_was_written_is_read(shards):
    batches = [shards[i] for i in range(len(shards))]
    for read, name in (
        ([x for x, _ in batches], "images"),
        ([y["boxes"] for _, y in batches], "boxes"),
        ([y["labels"] for _, y in batches], "labels"),
    ):
        assert read[0].dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(np.concatenate(read), ARRAYS[name][:28])
    assert batches[0][0].flags.writeable


def test_threads_and_copies_read_the_same(shards):
    copy = pickle.loads(pickle.dumps(shards))
    read = [None] * 7

    def work(i):
        read[i] = copy[i][1]["labels"].tolist()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [label for labels in read for label in labels] == list(range(28))
    copy.close()


def test_it_is_a_pydataset_of_its_shards():
    few = RemoteShards("http://127.0.0.1:1", 5, decode, workers=4, max_queue_size=7)
    assert (len(few), few.workers, few.max_queue_size) == (5, 4, 7)
    with pytest.raises(IndexError, match=r"index must be in 0..4. Received: 5."):
        few[5]


def test_a_missing_shard_names_its_url(directory):
    with serve(directory, 1e9) as url:
        shards = RemoteShards(url, 200, decode)
        with pytest.raises(FileNotFoundError, match=f"{url}/{shard_name(150)} must answer"):
            shards[150]
        shards.close()
