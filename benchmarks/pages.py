"""Renders the benchmarks' tables into the pages of the documentation.

A table stands between two comments, which name a file in `docs/benchmarks/` and a table of it:

    <!-- table: whole_runs steady -->
    ...
    <!-- end -->

So a page can't show a figure that isn't in the benchmark's own results; a test says so.

    python benchmarks/pages.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import auto_readers
import cache_speed
import ratio_accuracy
import reader_speed
import remedies
import throughput
import whole_runs

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = [DOCS / "benchmarks.md", DOCS / "callback.md", DOCS / "input-bound.md"]
TABLES = {
    table.__name__: table
    for table in (
        whole_runs.steady,
        whole_runs.uneven,
        whole_runs.bridged,
        whole_runs.buffered,
        whole_runs.hindsight,
        whole_runs.not_input_bound,
        whole_runs.slow_steps,
        auto_readers.auto_readers,
        remedies.first_remedies,
        ratio_accuracy.right,
        ratio_accuracy.emulated,
        ratio_accuracy.computing,
        throughput.rates,
        reader_speed.million_events,
        cache_speed.hits,
    )
}
PLACE = re.compile(r"(<!-- table: (\w+) (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(page: str) -> str:
    """The page with its tables as the results say."""

    def table(place: re.Match[str]) -> str:
        begin, file, name, end = place.groups()
        results = json.loads((DOCS / "benchmarks" / f"{file}.json").read_text())
        return f"{begin}\n{TABLES[name](results)}\n\n{end}"

    return PLACE.sub(table, page)


def main() -> None:
    """Renders all pages."""
    for page in PAGES:
        page.write_text(rendered(page.read_text()))


if __name__ == "__main__":
    main()
