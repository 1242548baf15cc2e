import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hand_made import reaching_at, record
from study import plan
from study.execution import do_runs
from study.journal import Journal, run_of

RUNS = plan.first_runs(["digits"])[:12]


def work(run):
    return record(run.setting, run.seed, reaching_at(run.setting, 0.5), rate=run.learning_rate)


def work_that_fails_once_some_are_done(run):
    if run == RUNS[6]:
        raise RuntimeError("the machine is on fire")
    return work(run)


def work_forever_from_the_seventh(run):
    if run == RUNS[6]:
        time.sleep(1000)
    return work(run)


def lines(path):
    return [run_of(json.loads(line)) for line in path.read_text().splitlines()]


def test_every_run_is_done_once(tmp_path):
    path = tmp_path / "new" / "runs.jsonl"
    do_runs([*RUNS, *RUNS], Journal(path), num_jobs=2, work=work)
    assert sorted(lines(path)) == sorted(RUNS)
    assert set(Journal(path).records) == set(RUNS)


def test_a_failing_run_ends_the_study_and_what_was_done_stays(tmp_path):
    path = tmp_path / "runs.jsonl"
    with pytest.raises(RuntimeError, match="on fire"):
        do_runs(RUNS, Journal(path), num_jobs=1, work=work_that_fails_once_some_are_done)
    done = lines(path)  # with the one behind, if it was over when the failure was seen
    assert done[:6] == RUNS[:6]
    assert RUNS[6] not in done
    do_runs(RUNS, Journal(path), num_jobs=1, work=work)
    assert lines(path) == [*done, *(run for run in RUNS if run not in done)]


def test_a_killed_study_goes_on(tmp_path):
    path = tmp_path / "runs.jsonl"
    study = (
        "from pathlib import Path\n"
        "import test_execution as t\n"
        "if __name__ == '__main__':\n"
        f"    t.do_runs(t.RUNS, t.Journal(Path({str(path)!r})), num_jobs=1,\n"
        "              work=t.work_forever_from_the_seventh)\n"
    )
    script = tmp_path / "killed_study.py"
    script.write_text(study)
    folders = [str(Path(__file__).parent), *sys.path]
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (path.exists() and len(path.read_text().splitlines()) == 6):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    do_runs(RUNS, Journal(path), num_jobs=2, work=work)
    assert lines(path)[:6] == RUNS[:6]
    assert sorted(lines(path)) == sorted(RUNS)


def test_half_a_line_is_dropped(tmp_path):
    path = tmp_path / "runs.jsonl"
    do_runs(RUNS[:2], Journal(path), num_jobs=1, work=work)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    journal = Journal(path)
    assert list(journal.records) == RUNS[:1]
    do_runs(RUNS[:2], journal, num_jobs=1, work=work)
    assert path.read_bytes() == whole


def test_workers_end(tmp_path):
    do_runs(RUNS[:1], Journal(tmp_path / "runs.jsonl"), num_jobs=1, work=work)
    assert not multiprocessing.active_children()
