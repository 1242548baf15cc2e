"""What echoing costs and brings: step rates and fresh reads at R = 0.5 to 8, side by side.

For each backend, in a process of its own, a small convolutional model trains from three inputs:

- in memory: a `PyDataset` that returns batches that are already there;
- bare: a `PyDataset` that delivers a batch every R training steps, and waits meanwhile;
- echoed: the same source through `EchoingPyDataset` with e = max(1, R), or e = 1.

The machine's speed drifts, so a round measures all inputs in turn, with the read time taken from
that very round's in-memory steps, and the table shows the median over rounds of ratios within one
round.

    python benchmarks/throughput.py [--backends jax,torch] [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import statistics
import time

from workload import (
    RATIOS,
    arguments_of,
    convolutional_model,
    in_each_backend,
    markdown,
    print_result,
    random_batches,
    write_json,
)

LATENESS_SECONDS = 0.005


def measure(ratios: list[float], rounds: int, seconds: float) -> dict:
    """All rounds on the backend of this process."""
    import keras

    import keras_echo

    batches = random_batches()

    class Source(keras.utils.PyDataset):
        """Delivers a batch every `wait_seconds`, as storage of limited bandwidth does."""

        def __init__(self, num_steps: int, wait_seconds: float = 0.0) -> None:
            super().__init__()
            self.num_steps = num_steps
            self.wait_seconds = wait_seconds
            self.num_reads = 0
            self.due = 0.0

        def __len__(self) -> int:
            return self.num_steps

        def __getitem__(self, index: int) -> tuple:
            if self.wait_seconds:
                now = time.perf_counter()
                # A busy machine wakes sleepers late; storage goes on sending meanwhile.
                self.due = max(self.due, now - LATENESS_SECONDS) + self.wait_seconds
                time.sleep(max(0.0, self.due - now))
            self.num_reads += 1
            return batches[index % len(batches)]

    class Clock(keras.callbacks.Callback):
        """Times the steps between the first tenth and the end, and counts the reads meanwhile."""

        def __init__(self, source: Source, num_steps: int) -> None:
            super().__init__()
            self.source, self.first, self.last = source, num_steps // 10, num_steps - 1

        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            if batch in (self.first, self.last):
                float(logs["loss"])  # waits for the step, on asynchronous backends too
            if batch == self.first:
                self.begin, self.reads = time.perf_counter(), self.source.num_reads
            if batch == self.last:
                self.seconds = time.perf_counter() - self.begin
                self.steps_per_second = (self.last - self.first) / self.seconds
                self.reads_per_second = (self.source.num_reads - self.reads) / self.seconds

    model = convolutional_model(width=32)

    def run(dataset: keras.utils.PyDataset, source: Source, num_steps: int) -> Clock:
        clock = Clock(source, num_steps)
        model.fit(dataset, verbose=0, callbacks=[clock])
        return clock

    def in_memory(num_steps: int) -> Clock:
        source = Source(num_steps)
        return run(source, source, num_steps)

    def echoed(wait_seconds: float, factor: float, num_steps: int) -> Clock:
        source = Source(num_steps, wait_seconds)
        dataset = keras_echo.EchoingPyDataset(source, echo_factor=factor, steps_per_epoch=num_steps)
        with dataset:
            return run(dataset, source, num_steps)

    in_memory(50)  # compiles
    num_steps = max(60, round(seconds * in_memory(100).steps_per_second))
    rows: dict[float, list[dict]] = {ratio: [] for ratio in ratios}
    for _ in range(rounds):
        for ratio in ratios:
            memory = in_memory(num_steps)
            wait_seconds = ratio / memory.steps_per_second
            num_bare = max(60, round(num_steps / max(1.0, ratio)))
            bare_source = Source(num_bare, wait_seconds)
            bare = run(bare_source, bare_source, num_bare)
            plain = echoed(wait_seconds, 1.0, num_bare)
            full = echoed(wait_seconds, max(1.0, ratio), num_steps)
            again = in_memory(num_steps)
            memory_rate = (memory.steps_per_second + again.steps_per_second) / 2
            rows[ratio].append(
                {
                    "in_memory_steps_per_second": memory_rate,
                    "bare_steps_per_second": bare.steps_per_second,
                    "echoed_steps_per_second": full.steps_per_second,
                    "echoed_over_in_memory": full.steps_per_second / memory_rate,
                    "echoed_over_bare": full.steps_per_second / bare.steps_per_second,
                    "fresh_over_bare": full.reads_per_second / bare.reads_per_second,
                    "plain_over_bare": plain.steps_per_second / bare.steps_per_second,
                }
            )
    return {
        "backend": keras.backend.backend(),
        "rounds": rounds,
        "steps": num_steps,
        "ratios": [
            {"ratio": ratio, **{key: statistics.median(r[key] for r in found) for key in found[0]}}
            for ratio, found in rows.items()
        ],
    }


def rates(results: list[dict]) -> str:
    """The three inputs side by side; the first three rates are steps per second."""
    rows = [
        [
            result["backend"],
            f"{row['ratio']:g}",
            f"{max(1.0, row['ratio']):g}",
            f"{row['in_memory_steps_per_second']:.1f}",
            f"{row['bare_steps_per_second']:.1f}",
            f"{row['echoed_steps_per_second']:.1f}",
            f"{row['echoed_over_in_memory']:.3f}",
            f"{row['echoed_over_bare']:.2f}",
            f"{row['fresh_over_bare']:.3f}",
            f"{row['plain_over_bare']:.3f}",
        ]
        for result in results
        for row in result["ratios"]
    ]
    header = ["backend", "R", "e", "in memory", "bare", "echoed", "echoed / in memory"]
    header += ["echoed / bare", "fresh reads / bare", "e = 1 / bare"]
    rounds = ", ".join(f"{result['rounds']} ({result['backend']})" for result in results)
    return f"No accelerator: two processor cores. Rounds: {rounds}.\n\n" + markdown(header, rows)


def main() -> None:
    """Measures each backend in a process of its own."""
    parser = arguments_of(__doc__)
    parser.add_argument("--ratios", default=",".join(map(str, RATIOS)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one in-memory run")
    args = parser.parse_args()
    if args.measure:
        ratios = [float(ratio) for ratio in args.ratios.split(",")]
        print_result(measure(ratios, args.rounds, args.seconds))
    arguments = ["--ratios", args.ratios, "--rounds", str(args.rounds)]
    arguments += ["--seconds", str(args.seconds)]
    results = in_each_backend(__file__, args.backends.split(","), arguments)
    print(rates(results))
    write_json(args.json, results)


if __name__ == "__main__":
    main()
