"""Whatever happens to log_dir, training goes on, says so once, and leaves nothing half done."""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

TRAIN = Path(__file__).with_name("train_on_broken_disk.py")
ENVIRONMENT = os.environ | {
    "PYTHONPATH": f"{Path(__file__).parents[2]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
}


def told_by(logdir, fault, epoch):
    done = subprocess.run(
        [sys.executable, str(TRAIN), str(logdir), fault, str(epoch)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("fault", "epoch", "word"),
    [
        ("removed", 1, "Its curves begin anew"),
        ("full", 0, "File too large"),
        ("full", 1, "File too large"),
        ("a file", 1, "Training goes on without them"),
    ],
)
def test_training_goes_on_and_says_so_once(tmp_path, fault, epoch, word):
    logdir = tmp_path / "logs"
    told = told_by(logdir, fault, epoch)
    assert told["epochs"] == 4
    (warning,) = told["warnings"]
    assert str(logdir) in warning
    assert word in warning
    assert told["hidden"] == []
    assert (len(told["curves"]) == 1) == (fault != "a file")
    assert told["origins"]
    if (fault, epoch) == ("full", 0):
        assert set(told["origins"]) == {"counters"}


@contextmanager
def small_disk():
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("a disk can be mounted by root only")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full():
    with small_disk() as folder:
        told = told_by(folder, "filled", 0)
    assert told["epochs"] == 4
    (warning,) = told["warnings"]
    assert "No space left on device" in warning
    assert (told["hidden"], set(told["origins"])) == ([], {"counters"})
