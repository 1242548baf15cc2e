"""A training that is killed at any moment ends with the weights of one that wasn't."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TIMES = 10 if os.environ.get("KERAS_ECHO_SOAK") else 1
PROGRAM = Path(__file__).with_name("kills.py")


@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize(
    ("kind", "save_freq", "num_kills"),
    [
        ("batch", 3, 6 * TIMES),
        ("batch", "epoch", 4 * TIMES),
        ("example", 2, 5 * TIMES),
        ("augmented", 4, 5 * TIMES),
        ("processes", 3, 1 * TIMES),  # each life imports Keras three times
    ],
)
def test_killed_at_random(kind, save_freq, num_kills):
    command = [sys.executable, PROGRAM, f"--kind={kind}", f"--save-freq={save_freq}"]
    done = subprocess.run([*command, f"--kills={num_kills}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["kills"] == num_kills
    assert report["wrong"] == 0
    assert "BrokenPipe" not in done.stderr
