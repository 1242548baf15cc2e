"""Whether the first remedy is the right one, and brings what it says.

Eight trainings that wait for their input, each for a reason of its own, and one that doesn't. A
step sleeps for 20 ms on the emulated accelerator (`emulated.py`). Each is trained with
`DataEchoCallback`, whose first remedy is then applied, alone and without echoing, and the fresh
batches in a second are counted. Reads sleep, but for those that compute.

    python benchmarks/remedies.py [--backends jax] [--rounds 1] [--json FILE]
"""

from __future__ import annotations

import itertools
import statistics
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from workload import arguments_of, in_each_backend, markdown, print_result, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

STEP_SECONDS = 0.02
NUM_STEPS = 300  # of the training that is measured
NUM_COUNTED, NUM_WARM = 120, 40  # steps with the remedy


class Case(NamedTuple):
    """A training.

    Attributes:
        why: What it waits for.
        right: The kind of the remedy that helps, or None.
        options: How the dataset is read.
    """

    why: str
    right: str | None
    options: dict[str, Any]


CASES = {
    "waiting, 1": Case("reads wait 80 ms, 1 reader", "readers", {"workers": 1}),
    "waiting, 16": Case("reads wait 640 ms, 16 readers", "readers", {"workers": 16}),
    "shared": Case("4 readers share a line of 60 ms a batch", "cache", {"workers": 4}),
    "NumPy": Case("sorting takes 36 ms, 1 reader", "readers", {"workers": 1}),
    "Python": Case("Python code takes 90 ms, 2 readers", "processes", {"workers": 2}),
    "bursts": Case("49 reads of 4 ms and one of 800 ms", "queue", {"workers": 1}),
    "augmentation": Case("a generator waits 25 ms, then augments for 15 ms", "augment", {}),
    "fast": Case("reads wait 5 ms, 1 reader", None, {"workers": 1}),
}


def measure(num_rounds: int) -> dict[str, Any]:
    """All cases on the backend in use."""
    import keras
    from emulated import Accelerator
    from input_bound import SOURCES, applied

    import keras_echo

    accelerator = Accelerator(STEP_SECONDS)
    accelerator.in_memory_seconds()
    results = []
    for number, name in itertools.product(range(num_rounds), CASES):
        case = CASES[name]
        with keras_echo.EchoingPyDataset(
            SOURCES[name](), shuffle=False, steps_per_epoch=NUM_STEPS, **case.options
        ) as dataset:
            callback = keras_echo.DataEchoCallback(dataset, verbose=0)
            accelerator.train(dataset, callbacks=[callback])
            remedies = callback.remedies()
        result = {
            "case": name,
            "round": number,
            "ratio": callback.decisions[-1].ratio,
            "before": _fresh_per_second(accelerator, SOURCES[name], case.options),
            "remedies": [remedy.kind for remedy in remedies],
        }
        if remedies and remedies[0].kind != "echo":
            first = remedies[0]
            source, options, num_first = applied(name, first, case.options)
            result |= {
                "change": first.change,
                "predicted": first.fresh_per_second,
                "after": _fresh_per_second(accelerator, source, options, num_first),
            }
        results.append(result)
    return {"backend": keras.backend.backend(), "results": results}


def _fresh_per_second(
    accelerator: Any, make: Callable[[], Any], options: dict[str, Any], num_first: int = 0
) -> float:
    """Of steps that each use a fresh batch, after `num_first` and the warm ones."""
    import keras_echo

    num_before = num_first + NUM_WARM
    with keras_echo.EchoingPyDataset(
        make(), shuffle=False, steps_per_epoch=num_before + NUM_COUNTED, **options
    ) as dataset:
        steps = accelerator.train(dataset)
    assert len(steps) == num_before + NUM_COUNTED
    return NUM_COUNTED / (steps[-1].seconds - steps[-1 - NUM_COUNTED].seconds)


def first_remedies(results: list[dict[str, Any]]) -> str:
    """The first remedy of each case, and what it brought; medians over rounds."""
    rows = []
    for of_backend, name in itertools.product(results, CASES):
        found = [one for one in of_backend["results"] if one["case"] == name]
        firsts = [(one["remedies"] or ["nothing to gain"])[0] for one in found]
        first = statistics.mode(firsts)

        def middle(key: str, found: list[dict[str, Any]] = found) -> str:
            values = [one[key] for one in found if key in one]
            return f"{statistics.median(values):.3g}" if values else "-"

        rows.append(
            [
                of_backend["backend"],
                CASES[name].why,
                next((one["change"] for one in found if "change" in one), first),
                *(middle(key) for key in ("ratio", "before", "predicted", "after")),
            ]
        )
    header = ["backend", "why it waits", "first remedy", "R", "fresh/s", "predicted", "after it"]
    return markdown(header, rows, num_texts=3)


def main() -> None:
    """Measures in one process per backend."""
    parser = arguments_of(__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    if args.measure:
        started = time.perf_counter()
        result = measure(args.rounds)
        print_result(result | {"seconds": time.perf_counter() - started})
    results = in_each_backend(__file__, args.backends.split(","), ["--rounds", str(args.rounds)])
    write_json(args.json, results)
    print(first_remedies(results))


if __name__ == "__main__":
    main()
