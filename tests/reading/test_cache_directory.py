"""What lies in the files of a cache: found again, never wrong, gone when it is to go."""

import gc
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from full_disk import full_disk

from keras_echo.reading.cache_directory import InFiles

LENGTH = 8
PLENTY = 10**9


def batch(index):
    """Tells its index in each of its bytes."""
    return np.full((50, 20), index, "uint8"), {"y": np.full(50, index, "int64")}


def is_batch(found, index):
    x, y = found
    return (x == index).all() and (y["y"] == index).all() and x.shape == (50, 20)


def keyed(folder, most_bytes=PLENTY, length=LENGTH, key="k"):
    return InFiles(folder, most_bytes, length, key)


def filled(files):
    for index in range(LENGTH):
        assert files.keep(index, batch(index))
    return files


def file_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.batch"))


def test_files_under_a_key_are_found_again_and_count(tmp_path):
    first = filled(keyed(tmp_path))
    assert first.emptied() is first
    again = keyed(tmp_path)
    assert again.num_bytes == first.num_bytes == file_bytes(tmp_path)
    assert all(is_batch(again.get(index), index) for index in range(LENGTH))
    assert not again.keep(3, batch(4))  # it has that one
    assert is_batch(again.get(3), 3)


def test_what_was_found_leaves_that_much_less_room(tmp_path):
    each = file_bytes_of_one(tmp_path / "one")
    for index in range(3):
        assert keyed(tmp_path).keep(index, batch(index))
    again = keyed(tmp_path, most_bytes=5 * each)
    assert [again.keep(index, batch(index)) for index in range(3, 7)] == [True, True, False, False]
    assert again.num_bytes == 5 * each == file_bytes(tmp_path / "k")
    less = keyed(tmp_path, most_bytes=each)  # nothing is thrown out
    assert is_batch(less.get(4), 4)
    assert not less.keep(6, batch(6))


def file_bytes_of_one(folder):
    folder.mkdir()
    assert keyed(folder).keep(0, batch(0))
    return file_bytes(folder)


def test_keys_and_unnamed_ones_lie_apart(tmp_path):
    filled(keyed(tmp_path))
    other, unnamed = keyed(tmp_path, key="other"), InFiles(tmp_path, PLENTY, LENGTH, None)
    assert other.get(0) is unnamed.get(0) is None


def test_another_length_under_the_key_is_an_error(tmp_path):
    keyed(tmp_path)
    with pytest.raises(ValueError, match="Use another key than 'k'") as error:
        keyed(tmp_path, length=9)
    assert "must be those of this source: {'format': 1, 'length': 9}" in str(error.value)
    assert "Received: {'format': 1, 'length': 8}." in str(error.value)


@pytest.mark.parametrize("left", [b"", bytes(30), b'{"format": 1, "len', None])
def test_a_manifest_that_cannot_be_read_is_written_again(tmp_path, left):
    filled(keyed(tmp_path))
    manifest = tmp_path / "k" / "manifest.json"
    manifest.unlink()
    if left is not None:
        manifest.write_bytes(left)
    assert is_batch(keyed(tmp_path).get(1), 1)
    assert json.loads(manifest.read_text()) == {"format": 1, "length": LENGTH}


def test_without_its_manifest_no_file_passes_for_one_of_another_length(tmp_path):
    filled(keyed(tmp_path))
    (tmp_path / "k" / "manifest.json").unlink()
    other = keyed(tmp_path, length=9)
    with pytest.warns(RuntimeWarning, match="it holds"):
        assert [other.get(index) for index in range(9)] == [None] * 9


def test_damaged_files_are_warned_of_once_and_make_room(tmp_path):
    each = filled(keyed(tmp_path)).num_bytes // LENGTH
    for index in (2, 5):
        path = tmp_path / "k" / f"{index}.batch"
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    files = keyed(tmp_path, most_bytes=LENGTH * each)
    with pytest.warns(RuntimeWarning) as warned:
        found = [files.get(index) for index in range(LENGTH)]
    assert [index for index in range(LENGTH) if found[index] is None] == [2, 5]
    assert str(warned[0].message) == (
        f"A cached batch in {str(tmp_path / 'k')!r} must be read as it was written. "
        "Received: DamagedError('its data are damaged'). Training reads it from the source."
    )
    assert len(warned) == 1
    assert files.num_bytes == (LENGTH - 2) * each == file_bytes(tmp_path)
    assert files.keep(5, batch(5))
    assert is_batch(files.get(5), 5)


def test_a_file_that_cannot_be_read_now_is_left_as_it_is(tmp_path):
    files = filled(keyed(tmp_path))
    num_bytes, path = files.num_bytes, tmp_path / "k" / "3.batch"
    path.unlink()
    path.mkdir()
    with pytest.warns(RuntimeWarning, match="Received: IsADirectoryError"):
        assert files.get(3) is None
    assert files.get(3) is None
    assert not files.keep(3, batch(3))
    assert files.num_bytes == num_bytes
    assert path.is_dir()


def test_a_batch_without_raw_bytes_is_not_kept(tmp_path):
    files = keyed(tmp_path)
    assert not files.keep(0, (np.array(["a", None]),))
    assert files.num_bytes == 0


def test_a_directory_that_vanished_is_warned_of_and_nothing_more_is_written(tmp_path):
    files = keyed(tmp_path)
    assert files.keep(0, batch(0))
    shutil.rmtree(tmp_path / "k")
    with pytest.warns(RuntimeWarning, match="must be read as it was written"):
        assert files.get(0) is None
    with pytest.warns(RuntimeWarning, match="must be written") as warned:
        assert not files.keep(1, batch(1))
    assert str(warned[0].message).endswith("Training goes on, and no more files are written.")
    (tmp_path / "k").mkdir()
    assert not files.keep(2, batch(2))
    assert files.num_bytes == 0


def test_a_file_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path):
    files = keyed(tmp_path)
    with (
        pytest.warns(RuntimeWarning, match="must be written. Received: OSError"),
        full_disk(700),
    ):
        assert not files.keep(0, batch(0))
    assert files.num_bytes == 0
    assert [path.name for path in (tmp_path / "k").iterdir()] == ["manifest.json"]


def test_what_a_killed_process_left_unfinished_goes_when_it_is_old(tmp_path):
    keyed(tmp_path)
    old, new = (tmp_path / "k" / f"{index}.batch-00.tmp" for index in (1, 2))
    for path in (old, new):
        path.write_bytes(bytes(100))
    an_hour_ago = time.time() - 3601
    os.utime(old, (an_hour_ago, an_hour_ago))
    files = keyed(tmp_path)
    assert (old.exists(), new.exists()) == (False, True)
    assert files.num_bytes == 100
    assert files.get(2) is None


def test_processes_that_write_at_the_same_time_do_no_harm(tmp_path):
    """Two that know nothing of one another, here on threads of one process."""
    both, start = [keyed(tmp_path), keyed(tmp_path)], threading.Barrier(4)
    wrong = []

    def use(files, seed):
        start.wait(10)
        for index in random.Random(seed).choices(range(LENGTH), k=200):
            found = files.get(index)
            if found is None:
                files.keep(index, batch(index))
            elif not is_batch(found, index):
                wrong.append(index)

    threads = [threading.Thread(target=use, args=(both[n % 2], n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(is_batch(keyed(tmp_path).get(index), index) for index in range(LENGTH))
    assert both[0].num_bytes == both[1].num_bytes == file_bytes(tmp_path)


@pytest.mark.parametrize("ends", ["emptied", "collected"])
def test_without_a_key_nothing_is_left(tmp_path, ends):
    files = filled(InFiles(tmp_path, PLENTY, LENGTH, None))
    assert is_batch(files.get(3), 3)
    assert len(list(tmp_path.iterdir())) == 1
    if ends == "emptied":
        again = files.emptied()
        assert (again.num_bytes, again.get(3)) == (0, None)
        assert list(tmp_path.iterdir()) == []
        assert again.keep(3, batch(3))
        assert is_batch(again.get(3), 3)
        del again
    del files
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_what_ctrl_c_kept_from_being_removed_goes_later(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    files = filled(InFiles(tmp_path, PLENTY, LENGTH, None))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            files.emptied()
    assert len(list(tmp_path.rglob("*.batch"))) == LENGTH
    del files
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_is_late_leaves_nothing_and_warns_of_nothing(tmp_path):
    files = filled(InFiles(tmp_path, PLENTY, LENGTH + 1, None))
    files.emptied()
    assert files.get(3) is None
    assert not files.keep(LENGTH, batch(LENGTH))
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_writes_while_it_is_closed_leaves_nothing(tmp_path):
    """As if the file had appeared after the directory was listed."""
    files = filled(InFiles(tmp_path, PLENTY, LENGTH + 1, None))
    path = next(tmp_path.iterdir())
    files.emptied()
    path.mkdir()
    files.keep(LENGTH, batch(LENGTH))
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import os, sys
from pathlib import Path
import numpy as np
from keras_echo.reading.cache_directory import InFiles
files = InFiles(Path(sys.argv[1]), 10**9, 2, None)
assert files.keep(0, np.zeros(10))
child = os.fork()
if child == 0:
    sys.exit()
os.waitpid(child, 0)
print(files.get(0) is not None, flush=True)
"""


def test_the_end_of_the_interpreter_removes_it_but_not_that_of_a_fork(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert list(Path(tmp_path).iterdir()) == []
