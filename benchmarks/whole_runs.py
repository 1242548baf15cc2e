"""What whole runs of `fit()` with `DataEchoCallback` bring, on the emulated accelerator.

A step sleeps for 20 ms, and readers sleep (`emulated.py`), so both need next to none of the
processor. R is what a fresh batch takes, all readers at full speed, over what a step takes from
memory. Runs begin at e = 1 and are timed from the second step to the last, the search for the
factor included. There are four parts:

- whole: steady, uneven and changing reads, and sources with a buffer of their own;
- fixed: the same with fixed factors, in the first round only, since these runs have no luck;
- cost: R = 0.5, where there is nothing to gain, with and without the callback in turn;
- slow: R = 16 and steps of a second: the factor after ten steps, in the first round only.

Each run is preceded by steps from memory, over which it is measured. Tables show medians over
rounds.

    python benchmarks/whole_runs.py [--backends jax,torch] [--rounds 3] [--jobs 3] [--json FILE]
"""

from __future__ import annotations

import itertools
import statistics
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from workload import arguments_of, in_each_backend, markdown, print_result, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    import emulated

STEP_SECONDS = 0.02
NUM_STEPS = 600
NUM_FLAT, NUM_FLAT_WARM = 200, 40  # batches read at full speed; `emulated.uneven` repeats after 40
FACTORS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
NUM_FIXED_STEPS = 150  # at steady reads a fixed factor's rate needs no long run
OUTAGE_SECONDS, INDEX_OF_OUTAGE = 5.0, 60
SLOWDOWN = 4.0
NUM_COST_STEPS = 1000
SLOW_STEP_SECONDS, SLOW_RATIO, NUM_SLOW_STEPS, NUM_EARLY_STEPS = 1.0, 16.0, 15, 10
PARTS = ("whole", "fixed", "cost", "slow")


class Case(NamedTuple):
    """What trains from what.

    Attributes:
        reads: How long reads take; see `READS`.
        ratio: R, if readers work as they should.
        readers: How many threads read.
    """

    reads: str
    ratio: float = 2.0
    readers: int = 1


READS = {
    "steady": "always the same time",
    "uneven": "lognormal times, sigma 1",
    "bursts": "four of 0.25 and one of 4 times the mean",
    "straggler": "one thread of four ten times slower",
    "shared": "four threads share a bandwidth",
    "outage": "one of 5 seconds",
    "changing": "four times slower after half of the steps",
    "tf.data": "tf.data, prefetch(16)",
    "DataLoader": "DataLoader, 2 workers x 4 batches",
    "Grain": "Grain, 4 threads, 8 batches",
}
STEADY = [
    Case("steady", ratio, readers) for ratio in (0.5, 1.1, 2.0, 4.0, 8.0) for readers in (1, 4)
]
UNEVEN = [
    Case("uneven"),
    Case("uneven", readers=4),
    Case("bursts"),
    Case("straggler", readers=4),
    Case("shared", readers=4),
    Case("outage"),
]
BUFFERED = [Case("tf.data"), Case("DataLoader"), Case("Grain")]
CHANGING = Case("changing")
HINDSIGHT = [Case("steady", 2.0), Case("steady", 4.0), CHANGING]
KNOWN = ("steady", "bursts", "outage", "changing")  # how fast reading is; else it is measured


def measure(rounds: int, parts: list[str], num_steps: int) -> dict:
    """All rounds on the backend of this process."""
    import keras
    from emulated import Accelerator

    device = Accelerator(STEP_SECONDS)
    device.in_memory_seconds()  # compiles
    result: dict[str, Any] = {
        "backend": keras.backend.backend(),
        "rounds": rounds,
        "steps": num_steps,
        **{part: [] for part in PARTS},
    }
    for number in range(rounds):
        if "whole" in parts:
            result["whole"] += [
                whole_run(device, case, num_steps)
                for case in [*STEADY, *UNEVEN, *BUFFERED, CHANGING]
            ]
        if "fixed" in parts and number == 0:
            result["fixed"] += [
                whole_run(device, case, num_fixed_steps(case, num_steps, factor), factor)
                for case in HINDSIGHT
                for factor in FACTORS
            ]
        if "cost" in parts:
            result["cost"].append(cost(device))
        if "slow" in parts and number == 0:
            result["slow"].append(slow_start())
    return result


def whole_run(
    device: emulated.Accelerator,
    case: Case,
    num_steps: int,
    factor: float | None = None,
) -> dict:
    """A run with that factor, or with the callback: its rates, and what it came to.

    Returns:
        Among others *steps*, per second and over those from memory, and *fresh*, fresh batches per
        second and over what readers at full speed deliver.
    """

    def source() -> Any:
        return source_of(
            case, case.ratio * step_seconds, lambda: len(device.steps) >= num_steps / 2
        )

    step_seconds = device.in_memory_seconds()
    batch_seconds = case.ratio * step_seconds if case.reads in KNOWN else flat_seconds(source())
    found = run(device, source(), num_steps, factor)
    begin, *_, end = times = [step.seconds for step in found.pop("steps")[1:]]
    reading_seconds = end - begin
    if case.reads == "outage":
        reading_seconds -= OUTAGE_SECONDS
    if case.reads == "changing":
        reading_seconds -= (1 - 1 / SLOWDOWN) * (end - times[num_steps // 2])
    return {
        **case._asdict(),
        "fixed_factor": factor,
        "step_seconds": step_seconds,
        "true_ratio": batch_seconds / step_seconds,
        "steps": (len(times) - 1) * step_seconds / (end - begin),
        "fresh": found.pop("num_fresh") * batch_seconds / reading_seconds,
        "longest_pause_seconds": max(after - before for before, after in itertools.pairwise(times)),
        **found,
    }


def num_fixed_steps(case: Case, num_steps: int, factor: float) -> int:
    """So many that all steady runs take as long, and that changing ones see what others see."""
    most = num_steps if case == CHANGING else NUM_FIXED_STEPS
    return round(most * min(1.0, factor / case.ratio))


def run(
    device: emulated.Accelerator,
    source: Any,
    num_steps: int,
    factor: float | None = None,
    **options: Any,
) -> dict:
    """Trains with that factor or, from 1 on, with the callback."""
    import keras_echo

    with keras_echo.EchoingPyDataset(
        source, echo_factor=factor or 1.0, steps_per_epoch=num_steps, shuffle=False
    ) as dataset:
        callback = keras_echo.DataEchoCallback(dataset, verbose=0, **options)
        steps = device.train(dataset, callbacks=[] if factor else [callback])
        numbers = [float(step.x[0, 0]) for step in steps]
        return {
            "steps": steps,
            "num_fresh": len(set(numbers)) - len(set(numbers[:2])),
            "extra_uses": dataset.stats().extra_uses,
            "factor": dataset.echo_factor,
            "decisions": [
                {
                    "step": decision.step,
                    "ratio": decision.ratio,
                    "bound": decision.breakdown.bound,
                    "factor": decision.factor,
                }
                for decision in callback.decisions
            ],
        }


def source_of(case: Case, batch_seconds: float, is_late: Callable[[], bool]) -> Any:
    """A source whose readers together deliver a batch every `batch_seconds`."""
    import buffered_sources
    import emulated

    match case.reads:
        case "tf.data":
            return buffered_sources.tf_data(batch_seconds)
        case "DataLoader":
            return buffered_sources.data_loader(batch_seconds)
        case "Grain":
            return buffered_sources.grain(batch_seconds)
    read_seconds = case.readers * batch_seconds
    seconds: Any = {
        "steady": lambda: read_seconds,
        "uneven": lambda: emulated.uneven(read_seconds),
        "bursts": lambda: emulated.bursts(read_seconds),
        # Batches come in order, and ten are read ahead: 11.4 come in ten of the others' reads.
        "straggler": lambda: emulated.Straggler(1.14 * batch_seconds),
        "shared": lambda: emulated.SharedBandwidth(batch_seconds),
        "outage": lambda: emulated.outage(read_seconds, OUTAGE_SECONDS, INDEX_OF_OUTAGE),
        "changing": lambda: lambda index: read_seconds * (SLOWDOWN if is_late() else 1.0),
    }[case.reads]()
    return emulated.SleepingSource(seconds, workers=case.readers)


def flat_seconds(source: Any) -> float:
    """What a batch takes, if whoever reads them does nothing else."""
    import keras_echo

    with keras_echo.EchoingPyDataset(source, steps_per_epoch=NUM_FLAT, shuffle=False) as dataset:
        ends = []
        for index in range(NUM_FLAT):
            dataset[index]
            ends.append(time.perf_counter())
    return (ends[-1] - ends[NUM_FLAT_WARM - 1]) / (NUM_FLAT - NUM_FLAT_WARM)


def cost(device: emulated.Accelerator) -> dict:
    """What the callback costs where there is nothing to gain, and whether it changes anything."""
    import numpy as np
    from emulated import SleepingSource, batch_of

    step_seconds = device.in_memory_seconds()

    def found(factor: float | None) -> dict:
        return run(device, SleepingSource(0.5 * step_seconds), NUM_COST_STEPS, factor)

    without, adapted = found(1.0), found(None)
    seconds, seconds_without = (
        one["steps"][-1].seconds - one["steps"][1].seconds for one in (adapted, without)
    )
    return {
        "step_seconds": step_seconds,
        "quotient": seconds / seconds_without,
        "factor": adapted["factor"],
        "extra_uses": adapted["extra_uses"],
        "is_as_read": all(
            np.array_equal(step.x, batch_of(index)[0])
            for index, step in enumerate(adapted["steps"])
        ),
    }


def slow_start() -> dict:
    """What is known after ten steps that take a second each."""
    from emulated import Accelerator, SleepingSource

    device = Accelerator(SLOW_STEP_SECONDS)
    step_seconds = device.in_memory_seconds(3, num_warm=3)
    source = SleepingSource(SLOW_RATIO * step_seconds)
    found = run(device, source, NUM_SLOW_STEPS, max_factor=20.0)
    early = [one for one in found["decisions"] if one["step"] <= NUM_EARLY_STEPS]
    return {
        "step_seconds": step_seconds,
        "seconds": found["steps"][NUM_EARLY_STEPS].seconds - found["steps"][0].seconds,
        "early_factor": early[-1]["factor"] if early else 1.0,
        "decisions": found["decisions"],
    }


def steady(results: list[dict]) -> str:
    """Whole runs with steady reads."""
    return _whole(results, ["steady"])


def uneven(results: list[dict]) -> str:
    """Whole runs with reads that aren't steady."""
    return _whole(results, ["uneven", "bursts", "straggler", "shared", "outage", "changing"])


def bridged(results: list[dict]) -> str:
    """Those of them in which training would wait."""
    return _whole(results, ["uneven", "bursts", "straggler", "outage"])


def buffered(results: list[dict]) -> str:
    """Whole runs with sources that read ahead by themselves."""
    return _whole(results, ["tf.data", "DataLoader", "Grain"])


def hindsight(results: list[dict]) -> str:
    """Every fixed factor beside the callback."""
    rows = []
    for result in results:
        for case, fixed in _by_case(result["fixed"]).items():
            runs = _by_case(result["whole"])[case]
            name = "R = 2, then 8" if case == CHANGING else f"R = {case.ratio:g}"
            for key in ("steps", "fresh"):
                cells = [f"{one[key]:.2f}" for one in fixed]
                rows.append([result["backend"], name, key, *cells, f"{_median(runs, key):.2f}"])
    header = ["backend", "reads", "", *(f"e = {factor:g}" for factor in FACTORS), "callback"]
    return _caption(results) + markdown(header, rows, num_texts=3)


def not_input_bound(results: list[dict]) -> str:
    """R = 0.5, with and without the callback."""
    rows = []
    for result in results:
        runs = result["cost"]
        quotients = [one["quotient"] for one in runs]
        rows.append(
            [
                result["backend"],
                f"{_median(runs, 'quotient'):.3f}",
                f"{min(quotients):.3f} to {max(quotients):.3f}",
                f"{max(one['factor'] for one in runs):g}",
                str(max(one["extra_uses"] for one in runs)),
                "yes" if all(one["is_as_read"] for one in runs) else "no",
            ]
        )
    header = ["backend", "time with / without", "range", "highest factor at the end"]
    header += ["most extra uses", "batches as read, in order"]
    return _caption(results, "cost", NUM_COST_STEPS) + markdown(header, rows)


def slow_steps(results: list[dict]) -> str:
    """R = 16 and steps of a second."""
    rows = [
        [
            result["backend"],
            f"{slow['step_seconds']:.2f}",
            _ratio(slow["decisions"][0]),
            f"{slow['early_factor']:g}",
            f"{slow['seconds']:.0f}",
        ]
        for result in results
        for slow in result["slow"]
    ]
    header = ["backend", "seconds per step", "R found first", "factor after ten steps"]
    return "Emulated accelerator. One run each.\n\n" + markdown(
        [*header, "seconds for ten steps"], rows
    )


def _whole(results: list[dict], reads: list[str]) -> str:
    names = [] if reads == ["steady"] else ["reads"]
    rows = [
        [
            result["backend"],
            *(READS[case.reads] for _ in names),
            str(case.readers),
            f"{_median(runs, 'true_ratio'):.3g}",
            f"{_median(runs, 'steps'):.2f}",
            f"{_median(runs, 'fresh'):.2f}",
            _ratio(runs[-1]["decisions"][-1]),
            f"{_median(runs, 'factor'):.2f}",
            f"{_median(runs, 'extra_uses'):.0f}",
            f"{_median(runs, 'longest_pause_seconds'):.2f}",
        ]
        for result in results
        for case, runs in _by_case(result["whole"]).items()
        if case.reads in reads
    ]
    header = ["backend", *names, "readers", "R", "steps", "fresh", "R found", "e at the end"]
    header += ["extra uses", "longest pause"]
    return _caption(results) + markdown(header, rows, num_texts=1 + len(names))


def _caption(results: list[dict], part: str = "whole", num_steps: int | None = None) -> str:
    steps = ", ".join(
        f"{1e3 * _median(result[part], 'step_seconds'):.1f} ms ({result['backend']})"
        for result in results
    )
    rounds, num_steps = results[0]["rounds"], num_steps or results[0]["steps"]
    return (
        f"Emulated accelerator. A step from memory takes {steps}.\n"
        f"{num_steps} steps a run, {rounds} round{'s' * (rounds > 1)}.\n\n"
    )


def _by_case(runs: list[dict]) -> dict[Case, list[dict]]:
    cases: dict[Case, list[dict]] = {}
    for one in runs:
        cases.setdefault(Case(*(one[name] for name in Case._fields)), []).append(one)
    return cases


def _median(runs: list[dict], key: str) -> float:
    return statistics.median(one[key] for one in runs)


def _ratio(decision: dict) -> str:
    sign = {"exact": "", "lower": "at least ", "upper": "at most "}[decision["bound"]]
    return f"{sign}{decision['ratio']:.2f}"


def main() -> None:
    """Measures in each backend and prints the tables."""
    parser = arguments_of(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=NUM_STEPS, help="of a whole run")
    parser.add_argument("--jobs", type=int, default=1, help="backends that are measured at a time")
    parser.add_argument("--parts", default=",".join(PARTS))
    args = parser.parse_args()
    if args.measure:
        print_result(measure(args.rounds, args.parts.split(","), args.steps))
    arguments = ["--rounds", str(args.rounds), "--steps", str(args.steps), "--parts", args.parts]
    results = in_each_backend(__file__, args.backends.split(","), arguments, args.jobs)
    write_json(args.json, results)
    tables = {
        "whole": (steady, uneven, buffered),
        "fixed": (hindsight,),
        "cost": (not_input_bound,),
        "slow": (slow_steps,),
    }
    for part in args.parts.split(","):
        for table in tables[part]:
            print(f"{table(results)}\n")


if __name__ == "__main__":
    main()
