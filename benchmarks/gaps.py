"""What `max_uses` brings where reading is uneven, on the emulated accelerator.

A step sleeps for 20 ms, and one reader sleeps (`emulated.py`); R = 2. `DataEchoCallback` runs
along, which sets `max_uses` to 8 unless it may not. Reads take:

- steady: always the same;
- uneven: lognormal times with sigma 1, of that mean;
- bursts: four short ones and a long one, of that mean;
- outage: always the same, but for one of 5 seconds.

A round measures steps in memory, and then every kind with and without `max_uses`; the table shows
medians over rounds of ratios within one round.

    python benchmarks/gaps.py [--backends jax,torch] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import statistics
import time

from workload import arguments_of, in_each_backend, print_result, write_json

STEP_SECONDS = 0.02
RATIO = 2.0
NUM_STEPS = 500
NUM_WARM = 10
OUTAGE_AT, OUTAGE_SECONDS = 60, 5.0
KINDS = ("steady", "uneven", "bursts", "outage")


def measure(rounds: int) -> dict:
    """All rounds on the backend of this process."""
    import keras
    import numpy as np
    from emulated import NUM_FEATURES, SleepingSource, emulated_model

    import keras_echo

    class Times(keras.callbacks.Callback):
        """When each step begins."""

        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []

        def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
            self.seconds.append(time.perf_counter())

    model = emulated_model(STEP_SECONDS)
    batches = np.zeros((8 * 60, NUM_FEATURES), "float32")

    def in_memory_seconds() -> float:
        times = Times()
        model.fit(batches, batches[:, :1], batch_size=8, verbose=0, callbacks=[times])
        return statistics.mean(np.diff(times.seconds[NUM_WARM:]))

    def read_seconds(kind: str, step_seconds: float) -> object:
        usual = RATIO * step_seconds
        lengths = np.random.default_rng(0).lognormal(-0.5, 1.0, 10_000)  # of mean 1
        return {
            "steady": usual,
            "uneven": lambda index: usual * lengths[index],
            "bursts": lambda index: usual * (0.25 if index % 5 else 4.0),
            "outage": lambda index: OUTAGE_SECONDS if index == OUTAGE_AT else usual,
        }[kind]

    def run(kind: str, step_seconds: float, bridges: bool) -> dict:
        times = Times()
        source = SleepingSource(read_seconds(kind, step_seconds))
        with keras_echo.EchoingPyDataset(source, steps_per_epoch=NUM_STEPS, shuffle=False) as data:
            callback = keras_echo.DataEchoCallback(data, verbose=0)
            if not bridges:
                data.max_uses = 1.0  # of the user's own: the callback leaves it
            model.fit(data, verbose=0, callbacks=[times, callback])
            stats = data.stats()
        seconds = times.seconds[-1] - times.seconds[1]
        return {
            "steps": (len(times.seconds) - 2) * step_seconds / seconds,
            "fresh": stats.fresh_batches * RATIO * step_seconds / seconds,
            "extra_uses": stats.extra_uses,
            "factor": data.echo_factor,
        }

    in_memory_seconds()
    measured: dict[tuple[str, bool], list[dict]] = {}
    for _ in range(rounds):
        step_seconds = in_memory_seconds()
        for kind in KINDS:
            for bridges in (False, True):
                measured.setdefault((kind, bridges), []).append(run(kind, step_seconds, bridges))
    return {
        "backend": keras.backend.backend(),
        "rounds": rounds,
        "cases": [
            {
                "reads": kind,
                "max_uses": bridges,
                **{name: statistics.median(one[name] for one in runs) for name in runs[0]},
            }
            for (kind, bridges), runs in measured.items()
        ],
    }


def table(results: list[dict]) -> str:
    """The results as Markdown."""
    lines = [
        "| backend | reads | steps | steps with max_uses | fresh | fresh with max_uses | "
        "extra uses | e at the end |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        for kind in KINDS:
            without, bridged = (
                next(c for c in result["cases"] if (c["reads"], c["max_uses"]) == (kind, bridges))
                for bridges in (False, True)
            )
            lines.append(
                f"| {result['backend']} | {kind} | {without['steps']:.2f} | "
                f"{bridged['steps']:.2f} | {without['fresh']:.2f} | {bridged['fresh']:.2f} | "
                f"{bridged['extra_uses']:.0f} | {bridged['factor']:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measures in each backend and prints the table."""
    parser = arguments_of(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.measure:
        print_result(measure(args.rounds))
    results = in_each_backend(__file__, args.backends.split(","), ["--rounds", str(args.rounds)])
    write_json(args.json, results)
    print(table(results))


if __name__ == "__main__":
    main()
