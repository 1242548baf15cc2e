"""Does echoing save data? The questions of arXiv 1907.05550 on five workloads of our own size.

    python benchmarks/echoing_study.py [--jobs 2] [--workload code,digits]  # goes on where it was
    python benchmarks/echoing_study.py --dry-run | --report | --pilot

`study/plan.py` says what is run. Each finished run is a line of `docs/study/runs.jsonl`; what is
there isn't run again. Afterwards the page `docs/study/index.md`, its plots and `results.json` are
made from these lines.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from study import pilot, plan
from study.execution import do_runs
from study.journal import Journal

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "study"


def main() -> None:
    """Does what is missing, and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--workload", default=",".join(plan.TASKS), help="some, with commas")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where runs and results lie")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="say how much there is to do")
    what.add_argument("--report", action="store_true", help="report on what is there")
    what.add_argument("--pilot", action="store_true", help="the runs that fixed the plan")
    args = parser.parse_args()
    tasks = args.workload.split(",")
    if args.pilot:
        journal = Journal(args.folder / "pilot.jsonl")
        do_runs(plan.pilot_runs(tasks), journal, num_jobs=args.jobs)
        for task in tasks:
            print(pilot.fixed_by(journal.records, plan.TASKS[task]))


if __name__ == "__main__":
    main()
