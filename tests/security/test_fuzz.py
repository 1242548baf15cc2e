"""A thousand damaged files of each run; `make soak` tries a million others."""

import subprocess
import sys
from pathlib import Path


def test_damaged_files_give_a_result_or_a_documented_error():
    # In a process of its own: a trace of one in which much was compiled holds all of that.
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("fuzz.py"), "--count=1000"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
