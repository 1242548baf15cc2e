"""A training that is killed at any moment ends with the weights of one that wasn't."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("kills.py")


@pytest.mark.parametrize(
    ("kind", "save_freq", "num_kills"),
    [
        ("batch", 3, 6),
        ("batch", "epoch", 4),
        ("example", 2, 5),
        ("augmented", 4, 5),
        ("processes", 3, 3),
    ],
)
def test_killed_at_random(kind, save_freq, num_kills):
    command = [sys.executable, PROGRAM, f"--kind={kind}", f"--save-freq={save_freq}"]
    done = subprocess.run(
        [*command, f"--kills={num_kills}"], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["kills"] == num_kills
    assert report["wrong"] == 0
    assert "BrokenPipe" not in done.stderr
