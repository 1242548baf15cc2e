"""Is R right? What `DataEchoCallback` reports beside what is true.

For each backend, in a process of its own, a small convolutional model trains from a source whose
reads take a known time: they wait, or they compute; one worker reads, or four do.

- True R: training from memory, while as many threads as there are workers read at full speed and
  throw away what they read. Nothing waits for anything, and both sides share the machine as they
  do in training: seconds per read over seconds per step. The median of four such runs, before,
  between and behind the reported ones.
- Reported R: the median of the first windows of three calls of `fit()`.

    python benchmarks/ratio_accuracy.py [--backends jax,torch] [--ratios 1,4] [--json FILE]
"""

from __future__ import annotations

import functools
import itertools
import statistics
import tempfile
import threading
import time
from typing import TYPE_CHECKING

from workload import (
    RATIOS,
    arguments_of,
    convolutional_model,
    in_each_backend,
    print_result,
    source_class,
    step_timer_class,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable

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

    model, source_of, timer_of = convolutional_model(), source_class(), step_timer_class()
    matrix = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")

    def compute(loops: float) -> None:
        for _ in range(round(loops)):
            matrix @ matrix  # lets other threads run, as decoders do

    def in_memory(verbose: int = 0) -> float:
        """Seconds per step."""
        timer = timer_of(20, 60)
        model.fit(source_of(num_steps=62), verbose=verbose, callbacks=[timer])
        return timer.step_seconds

    def beside_readers(read: Callable[[], None], workers: int, verbose: int) -> tuple[float, float]:
        """Seconds per read and per step, with neither waiting for the other."""
        ends: list[float] = []
        done = threading.Event()

        def reader() -> None:
            while not done.is_set():
                read()
                ends.append(time.perf_counter())

        threads = [threading.Thread(target=reader) for _ in range(workers)]
        for thread in threads:
            thread.start()
        step_seconds = in_memory(verbose)
        while len(ends) < 3 * workers:
            time.sleep(0.01)
        done.set()
        for thread in threads:
            thread.join()
        last = sorted(ends)[workers - 1 :]  # the readers began together
        return (last[-1] - last[0]) / (len(last) - 1), step_seconds

    def reader_of(kind: str, workers: int, ratio: float) -> Callable[[], None]:
        step_seconds = in_memory()
        if kind == "waiting":
            return functools.partial(time.sleep, ratio * workers * step_seconds)
        loops = 200.0
        for _ in range(2):  # reading slows training down, which changes R
            read = functools.partial(compute, loops)
            read_seconds, step_seconds = beside_readers(read, workers, 0)
            loops *= ratio * step_seconds / read_seconds
        return functools.partial(compute, max(1.0, loops))

    def case(kind: str, workers: int, ratio: float, factor: float, verbose: int) -> dict:
        read = reader_of(kind, workers, ratio)
        true = [beside_readers(read, workers, verbose)]
        reported = []
        for _ in range(WINDOWS):
            source = source_of(read, workers=workers)
            with (
                keras_echo.EchoingPyDataset(
                    source, echo_factor=factor, steps_per_epoch=STEPS
                ) as dataset,
                tempfile.TemporaryDirectory() as logs,
            ):
                callback = keras_echo.DataEchoCallback(dataset, logs, adapt=False, verbose=0)
                model.fit(dataset, verbose=verbose, callbacks=[callback])
            reported += [decision.breakdown for decision in callback.decisions]
            true.append(beside_readers(read, workers, verbose))
        true_ratio = statistics.median(up / down for up, down in true)
        ratios_reported = [found.ratio for found in reported]
        return {
            "kind": kind,
            "workers": workers,
            "ratio": ratio,
            "echo_factor": factor,
            "verbose": verbose,
            "true_ratio": true_ratio,
            "true_ratios": [up / down for up, down in true],
            "reported_ratio": statistics.median(ratios_reported),
            "reported_ratios": ratios_reported,
            "error": statistics.median(ratios_reported) / true_ratio - 1,
            "upstream_error": statistics.median(found.upstream_seconds for found in reported)
            / statistics.median(up for up, _ in true)
            - 1,
            "downstream_error": statistics.median(found.downstream_seconds for found in reported)
            / statistics.median(down for _, down in true)
            - 1,
            "origins": sorted({found.origin for found in reported}),
        }

    in_memory()  # compiles
    return {
        "backend": keras.backend.backend(),
        "in_memory_step_seconds": in_memory(),
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
    parser = arguments_of(__doc__)
    parser.add_argument("--ratios", default=",".join(map(str, RATIOS)))
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
