"""What an echoed step costs at each insertion point, side by side with a plain copy of the batch.

Reading is free here (the fresh batches are in memory already), so what is left is the cost of
serving: 64 images of 224x224x3, as uint8 and as float32. A round measures every case in turn, and
the table shows the median over rounds of ratios within one round. `host memory` is the peak of
what NumPy allocated in a run of its own, fresh batches that were there before not included. The
device is JAX's; without an accelerator it is the host's memory too.

A case is a name and a function from a workload to an endless stream of batches (`CASES`).

    python benchmarks/insertion_points.py [--factors 2,4] [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import keras
import numpy as np

import keras_echo
from keras_echo.echoing.example_echo import ExampleEchoing
from keras_echo.echoing.repetition import NoGap
from keras_echo.echoing.state import State
from keras_echo.memory.placement import ExamplePlacement
from keras_echo.reading.stream import Fresh, Position

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (64, 224, 224, 3)
BUFFER_BATCHES = 8
WARM_UP_STEPS = 100  # several fillings of the buffer


@dataclass
class Workload:
    """Fresh batches that are in memory already, and how often each is to be used."""

    fresh: list[tuple[np.ndarray, np.ndarray]]
    factor: float

    def source(self) -> keras.utils.PyDataset:
        """The fresh batches as a source that costs nothing to read."""
        return InMemory(self.fresh)


class InMemory(keras.utils.PyDataset):
    """Hands out the very same batches again and again."""

    def __init__(self, batches: list) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple:
        return self.batches[index]


def in_memory(workload: Workload) -> Iterator[tuple]:
    """The batches themselves: what training costs without any input pipeline."""
    return itertools.cycle(workload.fresh)


def plain_copy(workload: Workload) -> Iterator[tuple]:
    """One copy of each batch: the yardstick."""
    return (tuple(leaf.copy() for leaf in batch) for batch in in_memory(workload))


class Numbered(Iterator[Fresh]):
    """Fresh batches that need no reading."""

    def __init__(self, batches: Iterator[tuple]) -> None:
        self._numbered = enumerate(batches)
        self.position: Position | None = None

    def __next__(self) -> Fresh:
        ordinal, batch = next(self._numbered)
        self.position = Position(0, ordinal)
        return Fresh(self.position, batch)


def assembly(workload: Workload) -> Iterator[tuple]:
    """Example echoing on the calling thread, without the threads that run it ahead."""
    uses = ExampleEchoing(ExamplePlacement(), 0).start(
        Numbered(in_memory(workload)), State(seed=0), lambda: workload.factor, NoGap()
    )
    return (use.item.batch for use, *_ in uses)


def nothing_fresh(workload: Workload) -> Iterator[tuple]:
    """The same, from a buffer that takes in no fresh example any more."""
    return assembly(replace(workload, factor=1e9))


def dataset(**arguments: object) -> Callable[[Workload], Iterator[tuple]]:
    """What `EchoingPyDataset` serves with these arguments."""

    def stream(workload: Workload) -> Iterator[tuple]:
        with keras_echo.EchoingPyDataset(
            workload.source(), echo_factor=workload.factor, seed=0, **arguments
        ) as echoing:
            for index in itertools.count(1):  # index 0 would look like one of Keras's peeks
                yield echoing[index]

    return stream


def flipped(batch: tuple, rng: np.random.Generator) -> tuple:
    """Mirrors the whole batch or not: the cheapest augmentation there is."""
    images, labels = batch
    return (images[:, :, ::-1] if rng.random() < 0.5 else images), labels


class Case(NamedTuple):
    """An insertion point with a placement.

    Attributes:
        name: What the table calls it.
        stream: From a workload to an endless stream of batches.
        on_device: Whether a fresh batch goes to the device once, and not each that is served.
    """

    name: str
    stream: Callable[[Workload], Iterator[tuple]]
    on_device: bool = False


YARDSTICK = Case("plain copy", plain_copy)
CASES = (
    Case("in memory", in_memory),
    YARDSTICK,
    Case("batch", dataset(echo="batch", placement="host", shuffle_buffer=0)),
    Case(
        "batch, device",
        dataset(echo="batch", placement="device", shuffle_buffer=0),
        on_device=True,
    ),
    Case(
        "batch, shuffled",
        dataset(echo="batch", placement="host", shuffle_buffer=BUFFER_BATCHES),
    ),
    Case("example, assembly alone", assembly),
    Case("example, assembly, nothing fresh", nothing_fresh),
    Case("example", dataset(echo="example", placement="host")),
    Case("example, device", dataset(echo="example", placement="device"), on_device=True),
    Case("example, then flip", dataset(echo="example", augment=flipped)),
)


def measure(dtype: str, factor: float, rounds: int, steps: int) -> list[dict]:
    """All cases on one workload."""
    rng = np.random.default_rng(0)
    fresh = [(rng.integers(256, size=SHAPE).astype(dtype), np.arange(SHAPE[0])) for _ in range(8)]
    workload = Workload(fresh, factor)
    batch_bytes = sum(leaf.nbytes for leaf in fresh[0])
    memory = {case.name: peak_bytes(case, workload) for case in CASES}
    seconds: dict[str, list[float]] = {case.name: [] for case in CASES}
    with ExitStack() as stack:
        streams = {}
        for case in CASES:
            streams[case.name] = stream = case.stream(workload)
            if hasattr(stream, "close"):
                stack.enter_context(closing(stream))
            consume(stream, WARM_UP_STEPS)
        for _ in range(rounds):
            for case in CASES:
                begin = time.perf_counter()
                consume(streams[case.name], steps)
                seconds[case.name].append((time.perf_counter() - begin) / steps)
    copies = seconds[YARDSTICK.name]
    return [
        {
            "case": case.name,
            "dtype": dtype,
            "factor": factor,
            "batch_bytes": batch_bytes,
            "seconds_per_step": statistics.median(seconds[case.name]),
            "over_plain_copy": statistics.median(
                mine / copy for mine, copy in zip(seconds[case.name], copies, strict=True)
            ),
            "host_bytes": memory[case.name],
            "host_batches": memory[case.name] / batch_bytes,
            "transferred_bytes_per_step": round(batch_bytes / (factor if case.on_device else 1)),
        }
        for case in CASES
    ]


def consume(stream: Iterator[tuple], steps: int) -> None:
    """Takes batches, ready for use, and lets each go before the next, as a training step does."""
    for _ in range(steps):
        jax.block_until_ready(next(stream))


def peak_bytes(case: Case, workload: Workload) -> int:
    """The most that a run of the case allocates."""
    tracemalloc.start()
    stream = case.stream(workload)
    consume(stream, WARM_UP_STEPS)
    _, peak = tracemalloc.get_traced_memory()
    if hasattr(stream, "close"):
        stream.close()
    tracemalloc.stop()
    return peak


def table(rows: list[dict]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| where | dtype | e | ms per step | over a plain copy | host memory, batches "
        "| transferred per step, MB |",
        "|---|---" + "|---:" * 5 + "|",
    ]
    lines += [
        f"| {row['case']} | {row['dtype']} | {row['factor']:g} "
        f"| {row['seconds_per_step'] * 1000:.2f} | {row['over_plain_copy']:.2f} "
        f"| {row['host_batches']:.1f} | {row['transferred_bytes_per_step'] / 1e6:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures every case for every dtype and factor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", default="uint8,float32")
    parser.add_argument("--factors", default="1,2,4")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=16, help="of one case in one round")
    parser.add_argument("--json", type=Path, help="where to write the results")
    args = parser.parse_args()
    rows = []
    for dtype in args.dtypes.split(","):
        for factor in map(float, args.factors.split(",")):
            rows += measure(dtype, factor, args.rounds, args.steps)
            print(f"{dtype}, e = {factor:g} done", flush=True)
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
