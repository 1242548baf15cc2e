"""Does fit() find the right factor by itself? Adaptive echoing beside every fixed factor.

For each backend, in a process of its own, a small convolutional model trains from a source that
takes R training steps for a batch, in one run side by side:

- steady: R = 0.5 to 8; without echoing, fixed factors, and `DataEchoCallback` from e = 1 on;
- changing: R = 2, for a while reading takes four times as long, and then R = 2 again;
- cost: R = 0.5, where nothing is to be gained, with and without the callback, in turn.

Rates are those of whole calls of `fit()`, the adaptive one's search included.

    python benchmarks/adaptive.py [--backends jax,torch] [--parts steady,cost] [--json FILE]
"""

from __future__ import annotations

import statistics
import tempfile
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

FACTORS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
STEPS_PER_EPOCH = 100
STEADY_STEPS = 3000
FIXED_SECONDS = 3.0  # a fixed factor's rate needs no long run
PHASE_SECONDS = 6.0
CHANGING_RATIOS = (2.0, 8.0, 2.0)
COST_STEPS = 1000
COST_ROUNDS = 5
PARTS = ("steady", "changing", "cost")


def measure(parts: list[str], ratios: list[float]) -> dict:
    """All parts on the backend of this process."""
    import keras

    import keras_echo

    model = convolutional_model()
    source_of, timer_of = source_class(size=32), step_timer_class()

    def in_memory() -> float:
        """Seconds per step."""
        timer = timer_of(20, 120)
        model.fit(source_of(num_steps=122), verbose=0, callbacks=[timer])
        return timer.step_seconds

    def run(read_seconds: Callable[[float], float], factor: float | None, num_steps: int) -> dict:
        """Trains; without a factor, adaptively.

        Args:
            read_seconds: From seconds since the beginning to the seconds that a read takes.
            factor: The echoing factor.
            num_steps: A multiple of the steps in an epoch.
        """
        begin = time.perf_counter()
        source = source_of(lambda: time.sleep(read_seconds(time.perf_counter() - begin)))
        with (
            keras_echo.EchoingPyDataset(
                source, echo_factor=factor or 1.0, steps_per_epoch=STEPS_PER_EPOCH
            ) as dataset,
            tempfile.TemporaryDirectory() as logs,
        ):
            callback = keras_echo.DataEchoCallback(dataset, logs, verbose=0)
            begin = time.perf_counter()
            model.fit(
                dataset,
                epochs=num_steps // STEPS_PER_EPOCH,
                verbose=0,
                callbacks=[] if factor else [callback],
            )
            seconds = time.perf_counter() - begin
            return {
                "factor": factor,
                "seconds": seconds,
                "steps_per_second": num_steps / seconds,
                "fresh_per_second": dataset.stats().fresh_batches / seconds,
                "decisions": [
                    {
                        "step": decision.step,
                        "ratio": decision.breakdown.ratio,
                        "factor": decision.factor,
                        "origin": decision.breakdown.origin,
                    }
                    for decision in callback.decisions
                ],
            }

    def steady(ratio: float) -> dict:
        step_seconds = in_memory()
        read_seconds = ratio * step_seconds

        def fixed(factor: float) -> dict:
            epoch_seconds = STEPS_PER_EPOCH * max(step_seconds, read_seconds / factor)
            epochs = max(1, round(FIXED_SECONDS / epoch_seconds))
            return run(lambda _: read_seconds, factor, epochs * STEPS_PER_EPOCH)

        adaptive = run(lambda _: read_seconds, None, STEADY_STEPS)
        runs = [*map(fixed, FACTORS), adaptive]
        true_ratio = read_seconds / statistics.mean((step_seconds, in_memory()))
        return {"ratio": ratio, "true_ratio": true_ratio, "runs": runs}

    def changing() -> dict:
        step_seconds = in_memory()
        num_steps = 3 * PHASE_SECONDS / step_seconds // STEPS_PER_EPOCH * STEPS_PER_EPOCH

        def read_seconds(now: float) -> float:
            phase = min(int(max(0.0, now) / PHASE_SECONDS), len(CHANGING_RATIOS) - 1)
            return CHANGING_RATIOS[phase] * step_seconds

        runs = [run(read_seconds, factor, int(num_steps)) for factor in (*FACTORS, None)]
        return {"steps": int(num_steps), "step_seconds": step_seconds, "runs": runs}

    def cost() -> dict:
        read_seconds = 0.5 * in_memory()
        with_callback, without = [], []
        for _ in range(COST_ROUNDS):
            without.append(run(lambda _: read_seconds, 1.0, COST_STEPS)["seconds"])
            with_callback.append(run(lambda _: read_seconds, None, COST_STEPS)["seconds"])
        quotients = [a / b for a, b in zip(with_callback, without, strict=True)]
        return {
            "steps": COST_STEPS,
            "seconds_without": statistics.median(without),
            "quotient": statistics.median(quotients),
            "quotients": quotients,
        }

    in_memory()  # compiles
    result: dict = {"backend": keras.backend.backend(), "in_memory_step_seconds": in_memory()}
    if "steady" in parts:
        result["steady"] = [steady(ratio) for ratio in ratios]
    if "changing" in parts:
        result["changing"] = changing()
    if "cost" in parts:
        result["cost"] = cost()
    return result


def report(results: list[dict]) -> str:
    """Markdown tables: steps per second, fresh batches per second, and what they say."""
    lines = []
    columns = " | ".join(f"e = {factor:g}" for factor in FACTORS)
    if any("steady" in result for result in results):
        lines += [
            "Steps per second of whole runs:\n",
            f"| backend | R | {columns} | adaptive | over best | over e >= R "
            "| e after 2 windows | at the end |",
            "|---" + "|---:" * (len(FACTORS) + 6) + "|",
        ]
        for result in results:
            for case in result.get("steady", []):
                *fixed, adaptive = case["runs"]
                best = max(run["steps_per_second"] for run in fixed)
                # All of them train at one rate, if nothing disturbs: their median is less noisy
                # than the best of six.
                enough = statistics.median(
                    run["steps_per_second"]
                    for run in fixed
                    if run["factor"] >= min(case["ratio"], max(FACTORS))
                )
                rates = " | ".join(f"{run['steps_per_second']:.0f}" for run in case["runs"])
                decisions = adaptive["decisions"]
                lines.append(
                    f"| {result['backend']} | {case['true_ratio']:.2f} | {rates} "
                    f"| {adaptive['steps_per_second'] / best:.3f} "
                    f"| {adaptive['steps_per_second'] / enough:.3f} "
                    f"| {decisions[:2][-1]['factor']:.2f} | {decisions[-1]['factor']:.2f} |"
                )
    if any("changing" in result for result in results):
        lines += [
            "\nReading four times slower in the middle; seconds to the same number of steps, and "
            "fresh batches per second:\n",
            f"| backend | | {columns} | adaptive |",
            "|---|---" + "|---:" * (len(FACTORS) + 1) + "|",
        ]
        for result in results:
            runs = result.get("changing", {"runs": []})["runs"]
            for name, key, digits in (
                ("seconds", "seconds", 1),
                ("fresh / s", "fresh_per_second", 0),
            ):
                cells = " | ".join(f"{run[key]:.{digits}f}" for run in runs)
                lines.append(f"| {result['backend']} | {name} | {cells} |")
    if any("cost" in result for result in results):
        lines += [
            "\nR = 0.5, time with the callback over time without it, median and range:\n",
            "| backend | steps | quotient | range |",
            "|---" + "|---:" * 3 + "|",
        ]
        for result in results:
            cost = result["cost"]
            low, high = min(cost["quotients"]), max(cost["quotients"])
            lines.append(
                f"| {result['backend']} | {cost['steps']} | {cost['quotient']:.3f} "
                f"| {low:.3f} to {high:.3f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measures each backend in a process of its own."""
    parser = arguments_of(__doc__)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--ratios", default=",".join(map(str, RATIOS)))
    args = parser.parse_args()
    if args.measure:
        ratios = [float(ratio) for ratio in args.ratios.split(",")]
        print_result(measure(args.parts.split(","), ratios))
    arguments = ["--parts", args.parts, "--ratios", args.ratios]
    results = in_each_backend(__file__, args.backends.split(","), arguments)
    print(report(results))
    write_json(args.json, results)


if __name__ == "__main__":
    main()
