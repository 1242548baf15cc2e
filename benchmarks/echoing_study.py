"""Does echoing save data? The questions of arXiv 1907.05550 on five workloads of our own size.

    python benchmarks/echoing_study.py [--jobs 2] [--workload code,digits]  # goes on where it was
    python benchmarks/echoing_study.py --dry-run | --report | --pilot

`study/plan.py` says what is run. Each finished run is a line of `study/records/runs.jsonl`; what
is there isn't run again. Afterwards the page `docs/study/index.md`, its plots and
`study/records/results.json` are made from these lines.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from study import findings, pilot, plan, summary
from study.execution import do_runs
from study.findings import OWN, PAPER, answer
from study.journal import Journal
from study.page import page
from study.summary import KINDS, selected_rates, summarise

HERE = Path(__file__).resolve().parent
RECORDS = HERE / "study" / "records"
PAGES = HERE.parent / "docs" / "study"


def estimate(tasks: list[str], jobs: int, journal: Journal) -> str:
    """Runs, steps and minutes, at most: as if tuning selected no common learning rate."""
    lines = []
    total_steps, total_ms, left_ms = 0, 0.0, 0.0
    for name in tasks:
        settings = list(plan.settings([name]))
        most = plan.first_runs([name]) + plan.tuned_runs(
            [name], {setting: plan.rates(setting)[-1] for setting in settings}
        )
        steps = sum(run.setting.num_steps for run in most)
        cost_ms = sum(run.cost_ms for run in most)
        total_steps, total_ms = total_steps + steps, total_ms + cost_ms
        left_ms += sum(run.cost_ms for run in most if run not in journal.records)
        lines.append(
            f"{name}: {len(settings)} settings, at most {len(most)} runs, {steps:,} steps, "
            f"{cost_ms / 6e4:.0f} minutes of one core"
        )
    lines.append(
        f"all: at most {total_steps:,} steps, {total_ms / 6e4:.0f} minutes of one core, "
        f"{left_ms / 6e4 / jobs:.0f} minutes left for {jobs} jobs on as many idle cores"
    )
    return "\n".join(lines)


def run_all(tasks: list[str], jobs: int, journal: Journal) -> None:
    """All runs of the plan: first those that tuning needs, then what it selected."""
    do_runs(plan.first_runs(tasks), journal, num_jobs=jobs)
    selected = selected_rates(journal.records, tasks)
    do_runs(plan.tuned_runs(tasks, selected), journal, num_jobs=jobs)


def report(journal: Journal, records: Path, pages: Path) -> None:
    """Writes the page, its plots and the figures, from what is in the journal."""
    from study.plots import draw

    rows = {kind: summarise(journal.records, list(plan.TASKS), kind) for kind in KINDS}
    for task in plan.TASKS.values():
        if any(setting.task == task.name for setting in rows["common"]):
            draw(task, rows["common"], journal.records, pages / f"{task.name}.png")
    results = {
        kind: {
            "rows": summary.as_json(rows[kind]),
            "paper": [findings.as_json(asked, answer(asked, rows[kind])) for asked in PAPER],
            "own": [findings.as_json(asked, answer(asked, rows[kind])) for asked in OWN],
        }
        for kind in KINDS
    }
    (records / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (pages / "index.md").write_text(page(rows, len(journal.records)))


def main() -> None:
    """Does what is missing, and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--workload", default=",".join(plan.TASKS), help="some, with commas")
    parser.add_argument("--records", type=Path, default=RECORDS, help="where runs and results lie")
    parser.add_argument("--pages", type=Path, default=PAGES, help="where the page is written")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="say how much there is to do")
    what.add_argument("--report", action="store_true", help="report on what is there")
    what.add_argument("--pilot", action="store_true", help="the runs that fixed the plan")
    args = parser.parse_args()
    tasks = args.workload.split(",")
    if unknown := set(tasks) - set(plan.TASKS):
        parser.error(f"no such workload: {', '.join(unknown)}; there are {', '.join(plan.TASKS)}")
    if args.pilot:
        journal = Journal(args.records / "pilot.jsonl")
        do_runs(plan.pilot_runs(tasks), journal, num_jobs=args.jobs)
        for task in tasks:
            print(pilot.fixed_by(journal.records, plan.TASKS[task]))
        return
    journal = Journal(args.records / "runs.jsonl")
    if not args.report:
        print(estimate(tasks, args.jobs, journal))
    if args.dry_run:
        return
    if not args.report:
        run_all(tasks, args.jobs, journal)
    report(journal, args.records, args.pages)
    print(f"{args.pages / 'index.md'} written")


if __name__ == "__main__":
    main()
