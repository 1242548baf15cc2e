import numpy as np
import pytest
from study import data


@pytest.fixture
def exported(tmp_path, monkeypatch):
    made = {"code": lambda: (np.arange(3, dtype=np.uint8), np.ones((2, 2)))}
    monkeypatch.setattr(data, "MATERIAL", made)
    data.export(tmp_path)
    monkeypatch.setenv(data.FOLDER, str(tmp_path))
    made["code"] = lambda: pytest.fail("it lies in a file")
    return tmp_path


def test_what_lies_in_files_is_not_made(exported):
    first, second = data.material("code")
    np.testing.assert_array_equal(first, [0, 1, 2])
    assert (first.dtype, second.shape) == (np.uint8, (2, 2))


def test_what_should_lie_in_a_file_is_never_made_instead(exported):
    (exported / "code.npz").unlink()
    with pytest.raises(FileNotFoundError):
        data.material("code")


def test_arrays_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "MATERIAL", {"code": lambda: tuple(map(np.array, range(12)))})
    data.export(tmp_path)
    monkeypatch.setenv(data.FOLDER, str(tmp_path))
    assert [int(array) for array in data.material("code")] == list(range(12))


def test_without_files_it_is_made(monkeypatch):
    monkeypatch.delenv(data.FOLDER, raising=False)
    monkeypatch.setattr(data, "MATERIAL", {"code": lambda: (np.zeros(1),)})
    assert len(data.material("code")) == 1
