"""What is an echoed step worth? Does that predict what echoing saves, and is the default right?

    python benchmarks/worth_study.py [--jobs 2] [--workload code,digits]  # goes on where it was
    python benchmarks/worth_study.py --dry-run | --report | --export-data FOLDER

`study/worth/plan.py` says what is run and asked. Each finished run is a line of
`study/records/worth.jsonl`; what is there isn't run again. Afterwards the page `docs/worth.md`,
its plot and `study/records/worth_results.json` are made from these lines.

`--export-data` writes what the workloads are made of into files, about 12 MB; `--data` trains on
them, on another machine, whose Python has other sources.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.data import FOLDER, export
from study.execution import do_runs
from study.findings import answer
from study.findings import as_json as answer_as_json
from study.journal import Journal
from study.plan import TASKS
from study.worth import findings, plan, summary

if TYPE_CHECKING:
    from study.plan import Run

HERE = Path(__file__).resolve().parent
RECORDS = HERE / "study" / "records"
PAGES = HERE.parent / "docs"


def measure(run: Run) -> dict[str, Any]:
    """Does a run, in a worker."""
    # Keras is for the workers alone.
    from study.worth.training import record_of

    return record_of(run)


def estimate(tasks: list[str], jobs: int, journal: Journal) -> str:
    """Runs and minutes, at most: as if no run reached its target."""
    lines = []
    for name in tasks:
        runs = plan.runs([name])
        minutes = sum(plan.cost_ms(run) for run in runs) / 6e4
        num = len(list(plan.settings([name])))
        lines.append(
            f"{name}: {num} settings, {len(runs)} runs, at most {minutes:.0f} min of one core"
        )
    runs = plan.runs(tasks)
    left = sum(plan.cost_ms(run) for run in runs if run not in journal.records) / 6e4
    lines.append(
        f"all: {len(runs)} runs, at most {sum(map(plan.cost_ms, runs)) / 6e4:.0f} minutes of one "
        f"core, {left / jobs:.0f} minutes left for {jobs} jobs on as many idle cores"
    )
    return "\n".join(lines)


def report(journal: Journal, records: Path, pages: Path) -> None:
    """Writes the page, its plot and the figures, from what is in the journal."""
    from study.worth.page import page
    from study.worth.plots import draw

    rows = summary.summarise(journal.records, list(TASKS))
    found = summary.predictions(rows)
    verdict = findings.verdict_on_following(rows)
    results = {
        "rows": summary.as_json(rows),
        "default": [
            answer_as_json(asked, answer(asked, rows)) for asked in findings.OF_THE_DEFAULT
        ],
        "following": findings.verdict_as_json(verdict),
        "predictions": [summary.prediction_as_json(each) for each in found],
        "correlations": {
            name: correlation._asdict()
            for name, correlation in findings.correlations_by_factor(found).items()
        },
    }
    (records / "worth_results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(found, pages / "worth" / "prediction.png")
    (pages / "worth.md").write_text(page(rows, len(journal.records)))


def main() -> None:
    """Does what is missing, and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--workload", default=",".join(TASKS), help="some, with commas")
    parser.add_argument("--records", type=Path, default=RECORDS, help="where runs and results lie")
    parser.add_argument("--pages", type=Path, default=PAGES, help="where the page is written")
    parser.add_argument("--data", type=Path, help="what --export-data wrote")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="say how much there is to do")
    what.add_argument("--report", action="store_true", help="report on what is there")
    what.add_argument("--export-data", type=Path, help="write what the workloads are made of")
    args = parser.parse_args()
    tasks = args.workload.split(",")
    if unknown := set(tasks) - set(TASKS):
        parser.error(f"no such workload: {', '.join(unknown)}; there are {', '.join(TASKS)}")
    if args.export_data:
        print(f"{export(args.export_data) / 1e6:.1f} MB written into {args.export_data}")
        return
    if args.data:
        os.environ[FOLDER] = str(args.data.resolve())
    journal = Journal(args.records / "worth.jsonl")
    if not args.report:
        print(estimate(tasks, args.jobs, journal))
    if args.dry_run:
        return
    if not args.report:
        do_runs(plan.runs(tasks), journal, num_jobs=args.jobs, work=measure)
    report(journal, args.records, args.pages)
    print(f"{args.pages / 'worth.md'} written")


if __name__ == "__main__":
    main()
