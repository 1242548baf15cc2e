"""What a step costs by where its batch waits: echoed from the device, from the host, from NumPy.

For each backend, in a process of its own, a linear model, whose step is so short that the way of
the batch shows, trains on batches of 64 images of 224 x 224 x 3 in float32 (38.5 MB) from:

- resident: a `PyDataset` that returns one batch, which lies on the device already;
- NumPy: a `PyDataset` that returns one batch in NumPy, never copied: Keras's transfer and no more;
- host: `EchoingPyDataset(placement="host")` in the middle of one batch's echo: copied each time;
- device: the same with `placement="device"`;
- device, e = 4: with a fresh batch, and so a transfer, in every fourth step;
- examples: `echo="example"` with a buffer of 8 batches on the host and on the device, with nothing
  fresh and at e = 4.

The machine's speed drifts, so a round measures all in turn, each beside a resident run of its own
before and behind it, and the table shows the median over rounds of ratios within one round.

    python benchmarks/placement.py [--backends jax,torch] [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import statistics
import time

from workload import arguments_of, in_each_backend, print_result, write_json

ENDLESS = 1e6  # as an echoing factor: no fresh batch while the clock runs
WARM_UP = 5  # steps before the clock runs


def measure(rounds: int, num_steps: int) -> dict:
    """All rounds on the backend of this process."""
    import keras
    import numpy as np

    import keras_echo

    rng = np.random.default_rng(0)
    batch = (
        rng.uniform(size=(64, 224, 224, 3)).astype("float32"),
        rng.uniform(size=(64, 1)).astype("float32"),
    )
    resident_batch = keras.tree.map_structure(keras.ops.convert_to_tensor, batch)
    if keras.backend.backend() == "torch":
        # On the CPU, it would be NumPy's memory otherwise.
        resident_batch = keras.tree.map_structure(lambda leaf: leaf.clone(), resident_batch)

    class Source(keras.utils.PyDataset):
        """Returns one batch again and again."""

        def __init__(self, what: tuple) -> None:
            super().__init__()
            self.what = what

        def __len__(self) -> int:
            return num_steps

        def __getitem__(self, index: int) -> tuple:
            return self.what

    class Clock(keras.callbacks.Callback):
        """Times the steps behind the warm-up."""

        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            if batch in (WARM_UP, num_steps - 1):
                float(logs["loss"])  # waits for the step, on asynchronous backends too
            if batch == WARM_UP:
                self.begin = time.perf_counter()
            if batch == num_steps - 1:
                self.seconds = (time.perf_counter() - self.begin) / (batch - WARM_UP)

    model = keras.Sequential(
        [
            keras.Input((224, 224, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")

    def run(dataset: keras.utils.PyDataset) -> float:
        clock = Clock()
        model.fit(dataset, verbose=0, callbacks=[clock])
        return clock.seconds

    def echoed(placement: str, factor: float, echo: str = "batch") -> float:
        with keras_echo.EchoingPyDataset(
            Source(batch),
            echo_factor=factor,
            echo=echo,
            shuffle_buffer=0,
            placement=placement,
            max_queue_size=1,
        ) as dataset:
            return run(dataset)

    kinds = {
        "numpy": lambda: run(Source(batch)),
        "host": lambda: echoed("host", ENDLESS),
        "device": lambda: echoed("device", ENDLESS),
        "device_4": lambda: echoed("device", 4.0),
        "examples_host": lambda: echoed("host", ENDLESS, "example"),
        "examples_device": lambda: echoed("device", ENDLESS, "example"),
        "examples_host_4": lambda: echoed("host", 4.0, "example"),
        "examples_device_4": lambda: echoed("device", 4.0, "example"),
    }
    run(Source(resident_batch))  # compiles
    rows: dict[str, list[dict]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, step_seconds in kinds.items():
            before = run(Source(resident_batch))
            seconds = step_seconds()
            resident = (before + run(Source(resident_batch))) / 2
            rows[kind].append(
                {"seconds": seconds, "resident": resident, "over_resident": seconds / resident}
            )

    def median(kind: str, key: str) -> float:
        return statistics.median(row[key] for row in rows[kind])

    over_device = {
        kind: statistics.median(
            row["over_resident"] / device["over_resident"]
            for row, device in zip(found, rows["device"], strict=True)
        )
        for kind, found in rows.items()
    }
    return {
        "backend": keras.backend.backend(),
        "rounds": rounds,
        "steps": num_steps,
        "resident_ms": 1e3
        * statistics.median(row["resident"] for found in rows.values() for row in found),
        "kinds": [
            {
                "kind": kind,
                "ms": 1e3 * median(kind, "seconds"),
                "over_resident": median(kind, "over_resident"),
                "over_device": over_device[kind],
            }
            for kind in rows
        ],
    }


NAMES = {
    "numpy": "NumPy, not echoed",
    "host": "echoed, host",
    "device": "echoed, device",
    "device_4": "device, e = 4 with its transfers",
    "examples_host": "examples, host",
    "examples_device": "examples, device",
    "examples_host_4": "examples, host, e = 4",
    "examples_device_4": "examples, device, e = 4",
}
HEADER = "| backend | batch from | ms per step | / resident | / echoed, device |"


def table(results: list[dict]) -> str:
    """The results as a Markdown table."""
    lines = [HEADER, "|---|---" + "|---:" * 3 + "|"]
    for result in results:
        lines.append(f"| {result['backend']} | resident | {result['resident_ms']:.1f} | 1 | |")
        for row in result["kinds"]:
            lines.append(
                f"| {result['backend']} | {NAMES[row['kind']]} | {row['ms']:.1f} "
                f"| {row['over_resident']:.3f} | {row['over_device']:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measures each backend in a process of its own."""
    parser = arguments_of(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=150, help="in one run")
    args = parser.parse_args()
    if args.measure:
        print_result(measure(args.rounds, args.steps))
    arguments = ["--rounds", str(args.rounds), "--steps", str(args.steps)]
    results = in_each_backend(__file__, args.backends.split(","), arguments)
    print(table(results))
    write_json(args.json, results)


if __name__ == "__main__":
    main()
