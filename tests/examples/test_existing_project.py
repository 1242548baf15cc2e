"""The change to an existing project: small, documented as it is, and it works."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "existing_project.py"


@pytest.mark.timeout(240)
def test_a_copy_runs_anywhere(tmp_path, run_copy):
    pytest.importorskip("mlxtend")
    told = run_copy("--log-dir", "l")
    assert "+import keras_echo\n" in told
    rows = re.findall(r"^(without|with) echoing +([\d.]+)", told, re.MULTILINE)
    assert [name for name, _ in rows] == ["without", "with"]
    assert float(rows[0][1]) == 1.0
    assert (tmp_path / "l" / "validation_accuracy.png").stat().st_size > 10_000
    head, *epochs = (tmp_path / "l" / "with_echoing" / "history.csv").read_text().splitlines()
    assert "echo_factor,echo_ratio" in head
    assert len(epochs) == 2
    assert "echo" not in (tmp_path / "l" / "without_echoing" / "history.csv").read_text()


def test_five_lines_change(script):
    lines = script.change().splitlines()[2:]
    assert len([line for line in lines if line.startswith("+")]) == 4
    assert len([line for line in lines if line.startswith("-")]) == 1


def test_the_page_shows_this_change(script):
    page = (ROOT / "docs" / "examples" / "existing_project.md").read_text()
    [shown] = re.findall(r"```diff\n(.*?)```", page, re.DOTALL)
    assert shown == script.change()


def test_the_diff_makes_one_project_the_other(script, tmp_path):
    if not (patch := shutil.which("patch")):
        pytest.skip("patch is not installed")
    before, after = (script.project(f) for f in (script.train, script.train_echoing))
    assert "echo" not in before
    (tmp_path / "project.py").write_text(before)
    subprocess.run([patch, "-p1"], cwd=tmp_path, input=script.change(), text=True, check=True)
    assert (tmp_path / "project.py").read_text() == after


@pytest.mark.parametrize("function", ["train", "train_echoing"])
def test_both_projects_are_whole(script, function):
    names = {"__name__": "project"}
    exec(compile(script.project(getattr(script, function)), "project.py", "exec"), names)
    assert {"Digits", "build_model", "train"} <= names.keys()
