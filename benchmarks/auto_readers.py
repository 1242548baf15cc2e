"""Whether `workers="auto"` is as fast as the best fixed number of readers.

Batches are taken as fast as they come. Of `"auto"`, those after the first 200 reads are timed; of
the fixed numbers, those after the first two rounds. There is no training, so the backend makes no
difference.

    python benchmarks/auto_readers.py [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workload import markdown, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBERS = (1, 2, 4, 8, 16, 32)
NUM_READS = 200
MOST_SECONDS, FEWEST_TIMED = 1.5, 64  # of what is timed
READS = {
    "wait": "each waits 20 ms",
    "line": "share a line of 20 ms a batch",
    "capped": "each waits 20 ms, and a line of 4.2 ms a batch is shared",
    "NumPy": "sort for 4 ms",
    "Python": "run Python code for 4 ms",
}


def sources() -> dict[str, Callable[[], Any]]:
    """A source for each kind of reads."""
    from emulated import SharedBandwidth, SleepingSource
    from input_bound import HUGE, ComputingSource, PythonSource

    def capped() -> Callable[[int], float]:
        line = SharedBandwidth(0.0042)
        return lambda index: max(line(index), 0.02)

    return {
        "wait": lambda: SleepingSource(0.02, HUGE),
        "line": lambda: SleepingSource(SharedBandwidth(0.02), HUGE),
        "capped": lambda: SleepingSource(capped(), HUGE),
        "NumPy": lambda: ComputingSource(0.004, HUGE),
        "Python": lambda: PythonSource(0.004, HUGE),
    }


def batches_per_second(source: Any, workers: Any, num_before: int) -> tuple[float, int]:
    """How fast batches come after the first ones, and how many readers there are then."""
    import keras_echo

    with keras_echo.EchoingPyDataset(source, shuffle=False, workers=workers) as dataset:
        for index in range(num_before):
            dataset[index]
        began = time.perf_counter()
        for number in itertools.count(1):
            dataset[number]
            seconds = time.perf_counter() - began
            if seconds > MOST_SECONDS and number >= FEWEST_TIMED:
                return number / seconds, dataset.stats().num_readers
    raise AssertionError


def measure(num_rounds: int) -> list[dict[str, Any]]:
    """All kinds, fixed numbers and "auto" in turn."""
    results = []
    for number, (reads, make) in itertools.product(range(num_rounds), sources().items()):
        fixed = {
            workers: batches_per_second(make(), workers, 2 * workers + 2)[0] for workers in NUMBERS
        }
        auto, readers = batches_per_second(make(), "auto", NUM_READS)
        results.append(
            {"reads": reads, "round": number, "fixed": fixed, "auto": auto, "readers": readers}
        )
        print(results[-1])
    return results


def auto_readers(results: list[dict[str, Any]]) -> str:
    """Batches a second with each fixed number and with "auto", medians over rounds."""
    rows = []
    for reads, text in READS.items():
        found = [one for one in results if one["reads"] == reads]
        fixed = {
            number: statistics.median(one["fixed"][str(number)] for one in found)
            for number in NUMBERS
        }
        auto = statistics.median(one["auto"] for one in found)
        readers = sorted(one["readers"] for one in found)
        rows.append(
            [
                text,
                *(f"{fixed[number]:.0f}" for number in NUMBERS),
                f"{auto:.0f}",
                f"{readers[0]} to {readers[-1]}" if readers[0] < readers[-1] else f"{readers[0]}",
                f"{auto / max(fixed.values()):.2f}",
            ]
        )
    header = ["reads", *map(str, NUMBERS), '"auto"', "its readers", "over the best"]
    return markdown(header, rows)


def main() -> None:
    """Measures in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the results")
    args = parser.parse_args()
    results = measure(args.rounds)
    for one in results:
        one["fixed"] = {str(number): rate for number, rate in one["fixed"].items()}
    write_json(args.json, results)
    print(auto_readers(results))


if __name__ == "__main__":
    main()
