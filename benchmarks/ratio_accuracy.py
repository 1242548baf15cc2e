"""Is R right? What `DataEchoCallback(adapt=False)` reports beside what is true.

Reported is the median over the first windows of three short calls of `fit()`, or the first window
of one call where it takes long. There are two parts:

- emulated: steps and reads sleep (`emulated.py`), so the truth is known: what reads took over the
  number of readers, over what a step takes from memory, before and after. Errors of at most 5 %
  (10 % below R = 1) count as right.
- computing: a small convolutional model, whose steps and reads compute on the same two cores. The
  truth is then training from memory while as many threads as there are readers read at full speed
  and throw away what they read: the median of four such runs, before, between and behind the
  reported ones. What each side takes depends on what the other does at that moment, so this is
  reported, not promised.

    python benchmarks/ratio_accuracy.py [--backends jax,torch] [--json FILE]
"""

from __future__ import annotations

import argparse
import functools
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from workload import (
    arguments_of,
    convolutional_model,
    in_each_backend,
    markdown,
    print_result,
    source_class,
    step_timer_class,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import keras

NUM_WINDOWS = 3
LONG_SECONDS = 0.15  # for a batch: then one window has seen enough
NUM_CALLS = 24  # of the train function: warm-up and a window fit in
TOLERANCE, TOLERANCE_BELOW_1 = 0.05, 0.1
PARTS = ("emulated", "computing")


class Case(NamedTuple):
    """What trains from what.

    Attributes:
        ratio: R.
        readers: How many reads run at the same time.
        factor: The echoing factor.
        step_seconds: What a step takes.
        reads: Where reads are done: in "threads" or "processes".
        steps_per_execution: Keras's.
    """

    ratio: float
    readers: int = 1
    factor: float = 1.0
    step_seconds: float = 0.02
    reads: str = "threads"
    steps_per_execution: int = 1


EMULATED = [
    *(
        Case(ratio, readers, factor)
        for ratio in (0.3, 0.5, 0.9, 1.1, 2.0, 4.0, 8.0, 16.0)
        for readers in (1, 4, 16)
        for factor in sorted({1.0, max(1.0, ratio)})
        # The first batch of many slow readers takes minutes, and e changes little of what they do.
        if readers * ratio <= 64 and (factor == 1.0 or readers == 4)
    ),
    *(
        Case(ratio, readers, step_seconds=step_seconds)
        for step_seconds in (0.002, 0.2)
        for ratio in (1.1, 4.0)
        for readers in (1, 4)
    ),
    Case(4.0, 4, reads="processes"),
    Case(4.0, steps_per_execution=5),
]
COMPUTING = [
    Case(ratio, readers, factor)
    for ratio in (1.0, 4.0)
    for readers in (1, 4)
    for factor in sorted({1.0, ratio})
]


def measure(part: str) -> list[dict]:
    """All cases of a part on the backend of this process."""
    return measure_emulated() if part == "emulated" else measure_computing()


def measure_emulated() -> list[dict]:
    """The truth is known."""
    import keras
    from emulated import Accelerator, SleepingSource

    def accelerator(step_seconds: float, steps_per_execution: int = 1) -> Accelerator:
        device = Accelerator(step_seconds, steps_per_execution=steps_per_execution)
        device.in_memory_seconds(5, num_warm=5)  # compiles
        return device

    accelerator = functools.cache(accelerator)

    def found(case: Case) -> dict:
        device = accelerator(case.step_seconds, case.steps_per_execution)
        num_steps = max(5, round(0.5 / case.step_seconds))
        step_seconds = device.in_memory_seconds(num_steps, num_warm=5)
        read_seconds = case.ratio * case.readers * step_seconds
        sources = [
            SleepingSource(
                read_seconds,
                workers=case.readers,
                use_multiprocessing=case.reads == "processes",
            )
            for _ in range(NUM_WINDOWS if case.ratio * case.step_seconds < LONG_SECONDS else 1)
        ]
        reported = [reported_by(device.model, source, case) for source in sources]
        # Reads in other processes are not seen here.
        all_reads = [end - begin for source in sources for begin, end in source.reads.values()]
        batch_seconds = statistics.mean(all_reads or [read_seconds]) / case.readers
        again_seconds = device.in_memory_seconds(num_steps, num_warm=5)
        true_ratios = [batch_seconds / seconds for seconds in (step_seconds, again_seconds)]
        return compared(case, true_ratios, reported)

    # Keras on PyTorch makes single steps.
    is_torch = keras.backend.backend() == "torch"
    return [found(case) for case in EMULATED if case.steps_per_execution == 1 or not is_torch]


def measure_computing() -> list[dict]:
    """The truth is measured too."""
    import numpy as np

    model, source_of, timer_of = convolutional_model(), source_class(), step_timer_class()
    matrix = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")

    def compute(loops: float) -> None:
        for _ in range(round(loops)):
            matrix @ matrix  # lets other threads run, as decoders do

    def in_memory_seconds() -> float:
        timer = timer_of(20, 60)
        model.fit(source_of(num_steps=62), verbose=0, callbacks=[timer])
        return timer.step_seconds

    def beside_readers(read: Callable[[], None], readers: int) -> tuple[float, float]:
        """Seconds per batch and per step, with neither waiting for the other."""
        ends: list[float] = []
        done = threading.Event()

        def reader() -> None:
            while not done.is_set():
                read()
                ends.append(time.perf_counter())

        threads = [threading.Thread(target=reader) for _ in range(readers)]
        for thread in threads:
            thread.start()
        step_seconds = in_memory_seconds()
        while len(ends) < 3 * readers:
            time.sleep(0.01)
        done.set()
        for thread in threads:
            thread.join()
        last = sorted(ends)[readers - 1 :]  # the readers began together
        return (last[-1] - last[0]) / (len(last) - 1), step_seconds

    def reader_of(case: Case) -> Callable[[], None]:
        step_seconds, loops = in_memory_seconds(), 200.0
        for _ in range(2):  # reading slows training down, which changes R
            read = functools.partial(compute, loops)
            batch_seconds, step_seconds = beside_readers(read, case.readers)
            loops = max(1.0, loops * case.ratio * step_seconds / batch_seconds)
        return functools.partial(compute, loops)

    def found(case: Case) -> dict:
        read = reader_of(case)
        true, reported = [beside_readers(read, case.readers)], []
        for _ in range(NUM_WINDOWS):
            reported.append(reported_by(model, source_of(read, workers=case.readers), case))
            true.append(beside_readers(read, case.readers))
        return compared(case, [up / down for up, down in true], reported)

    in_memory_seconds()  # compiles
    return [found(case) for case in COMPUTING]


def reported_by(model: keras.Model, source: Any, case: Case) -> dict:
    """The first window of a `fit()`."""
    import keras_echo

    num_steps = NUM_CALLS * case.steps_per_execution
    with keras_echo.EchoingPyDataset(
        source, echo_factor=case.factor, steps_per_epoch=num_steps
    ) as dataset:
        callback = keras_echo.DataEchoCallback(dataset, adapt=False, verbose=0, max_factor=32.0)
        model.fit(dataset, verbose=0, callbacks=[callback])
    breakdown = callback.decisions[0].breakdown
    return {"ratio": breakdown.ratio, "bound": breakdown.bound, "origin": breakdown.origin}


def compared(case: Case, true_ratios: list[float], reported: list[dict]) -> dict:
    """What is said beside what is true."""
    true_ratio = statistics.median(true_ratios)
    reported_ratio = statistics.median(one["ratio"] for one in reported)
    return {
        **case._asdict(),
        "true_ratio": true_ratio,
        "true_ratios": true_ratios,
        "reported_ratio": reported_ratio,
        "reported": reported,
        "error": reported_ratio / true_ratio - 1,
    }


def right(results: list[dict]) -> str:
    """How often R was right on the emulated accelerator."""
    rows = [
        [
            result["backend"],
            name,
            f"{tolerance:.0%}",
            f"{sum(abs(error) <= tolerance for error in errors)} of {len(errors)}",
            f"{statistics.median(errors):+.1%}",
            f"{max(errors, key=abs):+.0%}",
        ]
        for result in results
        for name, tolerance, errors in (
            ("R >= 1", TOLERANCE, _errors(result, lambda ratio: ratio >= 1)),
            ("R < 1", TOLERANCE_BELOW_1, _errors(result, lambda ratio: ratio < 1)),
        )
    ]
    header = ["backend", "", "tolerance", "right", "median error", "worst"]
    return "Emulated accelerator.\n\n" + markdown(header, rows, num_texts=2)


def emulated(results: list[dict]) -> str:
    """Errors of R on the emulated accelerator."""
    return (
        "Emulated accelerator. An asterisk says that a window gave only a lower bound.\n\n"
        + _table(results, "emulated")
    )


def computing(results: list[dict]) -> str:
    """Errors of R where reads and steps share the processor."""
    return "No accelerator: two processor cores, which steps and reads share.\n\n" + _table(
        results, "computing"
    )


def _errors(result: dict, is_wanted: Callable[[float], bool]) -> list[float]:
    return [case["error"] for case in result["emulated"] if is_wanted(case["ratio"])]


def _table(results: list[dict], part: str) -> str:
    columns = [{_case(row): _error(row) for row in result[part]} for result in results]
    rows = []
    for case in dict.fromkeys(case for column in columns for case in column):
        notes = ["worker processes"] * (case.reads == "processes")
        notes += [f"steps_per_execution={case.steps_per_execution}"] * (
            case.steps_per_execution > 1
        )
        step = f"{1e3 * case.step_seconds:g} ms" if part == "emulated" else "as it is"
        rows.append(
            [
                ", ".join([step, *notes]),
                str(case.readers),
                f"{case.ratio:g}",
                f"{case.factor:g}",
                *(column.get(case, "") for column in columns),
            ]
        )
    header = ["step", "readers", "R", "e", *(result["backend"] for result in results)]
    return markdown(header, rows)


def _case(row: dict) -> Case:
    return Case(*(row[name] for name in Case._fields))


def _error(row: dict) -> str:
    is_exact = all(one["bound"] == "exact" for one in row["reported"])
    return f"{row['error']:+.0%}{'' if is_exact else '*'}"


def main() -> None:
    """Measures each backend in a process of its own."""
    parser = arguments_of(__doc__)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print_result(measure(args.part))
    backends = args.backends.split(",")
    found = {part: in_each_backend(__file__, backends, ["--part", part]) for part in PARTS}
    results = [
        {"backend": backend, **{part: found[part][number] for part in PARTS}}
        for number, backend in enumerate(backends)
    ]
    write_json(args.json, results)
    for table in (right, emulated, computing):
        print(f"{table(results)}\n")


if __name__ == "__main__":
    main()
