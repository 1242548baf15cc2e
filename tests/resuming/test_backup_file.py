import errno

import numpy as np
import pytest

from keras_echo.reading import batch_file
from keras_echo.resuming.backup_file import Backup, BackupFile

ARRAYS = [np.arange(6.0).reshape(2, 3), np.full((), 3, "float32"), np.zeros((0, 4), "int8")]


def test_comes_back(tmp_path):
    file = BackupFile(tmp_path / "new" / "directory")
    assert file.read() is None
    for epoch in (1, 2):
        file.write(Backup({"epoch": epoch, "names": ["ä", None]}, ARRAYS))
        about, arrays = file.read()
        assert about == {"epoch": epoch, "names": ["ä", None]}
        for array, expected in zip(arrays, ARRAYS, strict=True):
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)
    file.delete()
    assert not (tmp_path / "new" / "directory").exists()


def test_a_directory_with_other_files_stays(tmp_path):
    (tmp_path / "mine").touch()
    file = BackupFile(tmp_path)
    file.write(Backup({}, []))
    file.delete()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_any_damage_is_noticed(tmp_path):
    file = BackupFile(tmp_path)
    file.write(Backup({"epoch": 1}, ARRAYS))
    whole = file.path.read_bytes()
    for place in range(len(whole)):
        file.path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"The backup .* must be what was written"):
            file.read()
        file.path.write_bytes(whole[:place])
        with pytest.raises(ValueError, match=r"The backup .* must be what was written"):
            file.read()


def test_a_disk_that_is_full_leaves_the_last_one(tmp_path, monkeypatch):
    file = BackupFile(tmp_path)
    file.write(Backup({"epoch": 1}, ARRAYS))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(batch_file, "_bytes_of", full)
    with pytest.raises(OSError, match="No space"):
        file.write(Backup({"epoch": 2}, ARRAYS))
    monkeypatch.undo()
    assert file.read().about == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == [file.path.name]


def test_what_a_killed_process_left_goes(tmp_path):
    file = BackupFile(tmp_path)
    file.write(Backup({"epoch": 1}, ARRAYS))
    (tmp_path / f"{file.path.name}-new.tmp-0123{batch_file.TEMPORARY}").write_bytes(b"half")
    assert BackupFile(tmp_path).read().about == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == [file.path.name]
