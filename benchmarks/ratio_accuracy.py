"""Is R right? What `DataEchoCallback` reports beside what is true.

For each backend, in a process of its own, a small convolutional model trains from a source whose
reads take a known time: they wait, or they compute; one worker reads, or four do.

- True t_downstream: an in-memory step, measured before and after each case.
- True t_upstream: reads that wait: their own measured time over the workers. Reads that compute:
  what the workers deliver while nothing else runs.
- Reported R: the median of the first windows of three calls of `fit()`.

    python benchmarks/ratio_accuracy.py [--backends jax,torch] [--ratios 1,4] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from workload import (
    BACKENDS,
    RATIOS,
    convolutional_model,
    in_each_backend,
    print_result,
    source_class,
    step_timer_class,
    write_json,
)

WORKERS = (1, 4)
KINDS = ("waiting", "computing")
VERBOSE = (0, 1)
WINDOWS = 3
STEPS = 24  # warm-up and a window fit in
TOLERANCE = 0.1


def measure(ratios: list[float]) -> dict:
    """All cases on the backend of this process."""
    import keras
    import numpy as np

    import keras_echo

    model, Source, StepTimer = convolutional_model(), source_class(), step_timer_class()
    matrix = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")

    def in_memory_step(verbose: int) -> float:
        timer = StepTimer(20, 60)
        model.fit(Source(num_steps=62), verbose=verbose, callbacks=[timer])
        return timer.step_seconds

    def compute(loops: int) -> None:
        for _ in range(loops):
            matrix @ matrix  # lets other threads run, as decoders do

    def drained(read: object, workers: int, count: int) -> float:
        """Seconds per read with all workers at work."""
        begin = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda _: read(), range(count)))
        return (time.perf_counter() - begin) / count

    def case(kind: str, workers: int, ratio: float, factor: float, verbose: int) -> dict:
        before = in_memory_step(verbose)
        if kind == "waiting":
            read = lambda: time.sleep(ratio * workers * before)  # noqa: E731
        else:
            # Calibrated with all workers at work: four of them share two cores.
            loop = drained(lambda: compute(200), workers, 4 * workers) / 200
            read = lambda: compute(max(1, round(ratio * before / loop)))  # noqa: E731
        upstream = drained(read, workers, 4 * workers) if kind == "computing" else 0.0
        reported = []
        for _ in range(WINDOWS):
            source = Source(read, workers=workers)
            with (
                keras_echo.EchoingPyDataset(
                    source, echo_factor=factor, steps_per_epoch=STEPS
                ) as dataset,
                tempfile.TemporaryDirectory() as logs,
            ):
                callback = keras_echo.DataEchoCallback(dataset, logs, adapt=False, verbose=0)
                model.fit(dataset, verbose=verbose, callbacks=[callback])
            if kind == "waiting":
                upstream += statistics.mean(source.seconds) / workers / WINDOWS
            reported += [decision.breakdown for decision in callback.decisions]
        downstream = (before + in_memory_step(verbose)) / 2
        true = upstream / downstream
        ratios_reported = sorted(found.ratio for found in reported)
        return {
            "kind": kind,
            "workers": workers,
            "ratio": ratio,
            "echo_factor": factor,
            "verbose": verbose,
            "true_ratio": true,
            "reported_ratio": statistics.median(ratios_reported),
            "reported_ratios": ratios_reported,
            "error": statistics.median(ratios_reported) / true - 1,
            "upstream_error": statistics.median(f.upstream_seconds for f in reported) / upstream
            - 1,
            "downstream_error": statistics.median(f.downstream_seconds for f in reported)
            / downstream
            - 1,
            "origins": sorted({found.origin for found in reported}),
        }

    in_memory_step(0)  # compiles
    return {
        "backend": keras.backend.backend(),
        "in_memory_step_seconds": in_memory_step(0),
        "cases": [
            case(kind, workers, ratio, factor, verbose)
            for kind, workers, ratio in itertools.product(KINDS, WORKERS, ratios)
            for factor in sorted({1.0, max(1.0, ratio)})
            for verbose in VERBOSE
        ],
    }


def table(results: list[dict]) -> str:
    """Errors of the reported R as a Markdown table, backends and verbose side by side."""
    columns = [(result, verbose) for result in results for verbose in VERBOSE]
    names = " | ".join(f"{result['backend']}, verbose={verbose}" for result, verbose in columns)
    lines = [f"| reads | workers | R | e | {names} |", "|---" + "|---:" * (3 + len(columns)) + "|"]
    keys = ("kind", "workers", "ratio", "echo_factor")
    rows = dict.fromkeys(tuple(case[key] for key in keys) for case in results[0]["cases"])
    for row in rows:
        cells = [
            f"{case['error']:+.0%}"
            for result, verbose in columns
            for case in result["cases"]
            if tuple(case[key] for key in keys) == row and case["verbose"] == verbose
        ]
        kind, workers, ratio, factor = row
        lines.append(f"| {kind} | {workers} | {ratio:g} | {factor:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(results: list[dict]) -> str:
    """How many cases with R >= 1 are within the tolerance, and the median error."""
    lines = ["| backend | reads | workers | within 10 % | median error | worst |"]
    lines += ["|---|---" + "|---:" * 4 + "|"]
    for result in results:
        for kind, workers in itertools.product(KINDS, WORKERS):
            errors = [
                case["error"]
                for case in result["cases"]
                if (case["kind"], case["workers"]) == (kind, workers) and case["ratio"] >= 1
            ]
            within = sum(abs(error) <= TOLERANCE for error in errors)
            lines.append(
                f"| {result['backend']} | {kind} | {workers} | {within} of {len(errors)} "
                f"| {statistics.median(errors):+.0%} | {max(errors, key=abs):+.0%} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measures each backend in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--ratios", default=",".join(map(str, RATIOS)))
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print_result(measure([float(ratio) for ratio in args.ratios.split(",")]))
    results = in_each_backend(__file__, args.backends.split(","), ["--ratios", args.ratios])
    print(summary(results))
    print()
    print(table(results))
    write_json(args.json, results)


if __name__ == "__main__":
    main()
