"""What a real accelerator says: R, what the callback costs, where batches wait, and a trace.

A convolutional network in float32, whose steps are made to take 10 to 30 ms, trains on images of
64 x 64 x 3. Readers sleep, so what they take is known. The parts:

- ratio: the callback at its defaults finds R = 2, 4 and 8. True is what reads took over what a step
  takes whose batch lies on the device, measured before and after, as `fit()` without echoing.
- cost: at R = 0.5, `fit()` with the callback over `fit()` of the bare source, which Keras reads on
  the training thread, and over `fit()` of an `EchoingPyDataset` without the callback.
- ahead: how many steps the host is ahead of the device, and how many batches are used once more at
  R = 0.7 and steps of 60 ms, where none should be: a host that runs ahead waits for batches that
  the device doesn't need yet.
- placement: steps of a linear model at e = 4, with batches of 40 MB that wait on the host and on
  the device; and whether both come to the same weights, bit for bit.
- trace: one window of three steps is kept, and what `analyze` says of it.

The device is waited for where a clock starts or stops, and nowhere else. A part that fails says so
in its place in the results, and the others go on.

    KERAS_BACKEND=jax python benchmarks/on_gpu.py [--cpu] [--json FILE] [--traces DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from workload import markdown, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    import keras

    import keras_echo

ON_CPU = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
RATIOS = (2.0, 4.0, 8.0)
WIDTH = 64  # of the convolutions
LEAST_SECONDS, TARGET_SECONDS, MOST_SECONDS = 0.010, 0.014, 0.030  # of a step
SLOW_SECONDS = 0.06  # of a step of the part "ahead"
MOST_BLOCKS = 48
WARM_UP = 5  # steps before the clock runs
NUM_ROUNDS = 3
NUM_BATCHES = 8  # different ones


class Sizes(NamedTuple):
    """How much is computed.

    Attributes:
        batch: Images in a batch.
        image: Their height and width.
        blocks: Convolutions of the model.
        steps: Steps of a run of the part "ratio".
        cost_steps: The same of the part "cost".
        large: Images of 224 x 224 x 3 in a batch of the part "placement".
        large_steps: Steps of its runs.
    """

    batch: int = 256
    image: int = 64
    blocks: int = 4
    steps: int = 350
    cost_steps: int = 200
    large: int = 66
    large_steps: int = 60


SMALL = Sizes(16, 16, blocks=2, steps=120, cost_steps=60, large=4, large_steps=20)


class Clock(NamedTuple):
    """What was so far, at the begin of a step.

    Attributes:
        seconds: By the clock, when the device was done with all steps before.
        fresh: Fresh batches that were used.
        extra: Uses that filled gaps.
    """

    seconds: float
    fresh: int
    extra: int


def accelerator() -> str | None:
    """The name of the first one; None if there is none."""
    import keras

    match keras.backend.backend():
        case "jax":
            import jax

            device = jax.devices()[0]
            return None if device.platform == "cpu" else device.device_kind
        case "torch":
            import torch

            return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return None


def versions() -> dict[str, str]:
    """What this runs with."""
    from importlib import metadata

    import keras

    names = ("keras", keras.backend.backend(), "numpy", "protobuf")
    return {name: metadata.version(name) for name in names}


class Bench:
    """The models, their batches, and runs of `fit()` with a clock.

    Args:
        sizes: How much is computed.
        is_fitted: Whether the model gets so many blocks that a step takes as long as it should.

    Attributes:
        step_seconds: What a step of the model takes whose batch lies on the device.
    """

    def __init__(self, sizes: Sizes, is_fitted: bool) -> None:
        import numpy as np

        self.sizes = sizes
        rng = np.random.default_rng(0)
        shape = sizes.batch, sizes.image, sizes.image, 3
        self.batches = [
            (
                rng.normal(size=shape).astype("float32"),
                rng.integers(10, size=sizes.batch).astype("int32"),
            )
            for _ in range(NUM_BATCHES)
        ]
        self.is_fitted = is_fitted
        self.model = convolutional(sizes.image, sizes.blocks)
        self.step_seconds = self.in_memory_seconds()
        if is_fitted and not LEAST_SECONDS < self.step_seconds < MOST_SECONDS:
            blocks = round(sizes.blocks * TARGET_SECONDS / self.step_seconds)
            self.sizes = sizes._replace(blocks=min(max(1, blocks), MOST_BLOCKS))
            self.model = convolutional(sizes.image, self.sizes.blocks)
            self.step_seconds = self.in_memory_seconds()

    def found(self) -> dict[str, Any]:
        """How much is computed, and what a step takes by where its batch lies."""
        return {
            **self.sizes._asdict(),
            "step_ms": 1e3 * self.step_seconds,
            "from_numpy_ms": 1e3 * self.in_memory_seconds(is_on_device=False),
        }

    def in_memory_seconds(self, is_on_device: bool = True) -> float:
        """What a step takes whose batch lies on the device, or in NumPy."""
        import keras

        batches = self.batches[:2]
        if is_on_device:
            batches = keras.tree.map_structure(on_device, batches)
        num_steps = max(WARM_UP + 10, self.sizes.steps // 6)
        first, last = timed(self.model, source(batches, num_steps), (WARM_UP, num_steps - 1))
        return (last.seconds - first.seconds) / (num_steps - 1 - WARM_UP)

    def ratio(self, ratio: float) -> dict[str, Any]:
        """The callback finds R."""
        import keras_echo

        num_steps = self.sizes.steps
        before = self.in_memory_seconds()
        read = source(self.batches, num_steps, ratio * before)
        with (
            tempfile.TemporaryDirectory() as logs,
            keras_echo.EchoingPyDataset(read, steps_per_epoch=num_steps) as dataset,
        ):
            callback = keras_echo.DataEchoCallback(dataset, logs)
            at = (1, num_steps // 2, num_steps - 1)
            clocks = timed(self.model, dataset, at, callbacks=[callback])
        after = self.in_memory_seconds()
        step_seconds = (before + after) / 2
        read_seconds = statistics.mean(read.seconds)

        def rates(begin: int, end: int) -> dict[str, float]:
            seconds = clocks[end].seconds - clocks[begin].seconds
            num_fresh = clocks[end].fresh - clocks[begin].fresh
            return {
                "steps": (at[end] - at[begin]) * step_seconds / seconds,
                "fresh": num_fresh * read_seconds / seconds,
                "extra_uses": clocks[end].extra - clocks[begin].extra,
            }

        return {
            "wanted_ratio": ratio,
            "in_memory_ms": [1e3 * before, 1e3 * after],
            "read_ms": 1e3 * read_seconds,
            "true_ratio": read_seconds / step_seconds,
            "whole": rates(0, 2),
            "second_half": rates(1, 2),
            "decisions": [described(decision) for decision in callback.decisions],
        }

    def cost(self) -> dict[str, Any]:
        """With the callback over without, at R = 0.5."""
        import keras_echo

        num_steps = self.sizes.cost_steps
        decisions: list[dict[str, Any]] = []

        def run(is_echoing: bool, is_adapting: bool) -> float:
            read = source(self.batches, num_steps, 0.5 * self.step_seconds)
            with keras_echo.EchoingPyDataset(read, steps_per_epoch=num_steps) as dataset:
                callback = keras_echo.DataEchoCallback(dataset)
                first, last = timed(
                    self.model,
                    dataset if is_echoing else read,
                    (1, num_steps - 1),
                    callbacks=[callback] if is_adapting else [],
                )
                decisions.extend(map(described, callback.decisions))
            return last.seconds - first.seconds

        kinds = {"bare": (False, False), "without": (True, False), "with": (True, True)}
        rounds = [{kind: run(*kinds[kind]) for kind in kinds} for _ in range(NUM_ROUNDS)]
        return {
            "seconds": rounds,
            "over_bare": statistics.median(one["with"] / one["bare"] for one in rounds),
            "over_without": statistics.median(one["with"] / one["without"] for one in rounds),
            "highest_factor": max(decision["factor"] for decision in decisions),
            "decisions": decisions,
        }

    def ahead(self) -> dict[str, Any]:
        """How far the host is ahead of the device, and what that does to batches."""
        import keras
        import numpy as np

        import keras_echo

        size, num_steps = (4096, 60) if self.is_fitted else (64, 30)
        x = np.random.default_rng(0).normal(size=(size, 64)).astype("float32")
        batches = [(x, x[:, :1])]
        resident = keras.tree.map_structure(on_device, batches)

        def in_memory(model: keras.Model) -> tuple[float, list[float]]:
            begins: list[float] = []
            first, last = timed(
                model, source(resident, num_steps), (WARM_UP, num_steps - 1), begins
            )
            step_seconds = (last.seconds - first.seconds) / (num_steps - 1 - WARM_UP)
            return step_seconds, [begin - first.seconds for begin in begins[WARM_UP + 1 :]]

        model, blocks = dense(size, 4), 4
        step_seconds, begins = in_memory(model)
        if self.is_fitted:
            blocks = min(max(1, round(blocks * SLOW_SECONDS / step_seconds)), MOST_BLOCKS)
            model = dense(size, blocks)
            step_seconds, begins = in_memory(model)
        read = source(batches, num_steps, 0.7 * step_seconds)
        with keras_echo.EchoingPyDataset(read, steps_per_epoch=num_steps) as dataset:
            callback = keras_echo.DataEchoCallback(dataset)
            first, last = timed(model, dataset, (1, num_steps - 1), callbacks=[callback])
        return {
            "blocks": blocks,
            "step_ms": 1e3 * step_seconds,
            # When the host began with steps, in steps of the device.
            "begins": [round(begin / step_seconds, 1) for begin in begins],
            "steps_ahead": max(
                number - begin / step_seconds for number, begin in enumerate(begins, 1)
            ),
            "fresh": last.fresh - first.fresh,
            "extra_uses": last.extra - first.extra,
            "steps": num_steps - 2,
            "decisions": [described(decision) for decision in callback.decisions],
        }

    def placement(self) -> list[dict[str, Any]]:
        """Steps at e = 4, by where batches and examples wait."""
        import keras
        import numpy as np

        import keras_echo

        rng = np.random.default_rng(0)
        num_steps = self.sizes.large_steps
        batches = [
            (
                rng.uniform(size=(self.sizes.large, 224, 224, 3)).astype("float32"),
                rng.uniform(size=(self.sizes.large, 1)).astype("float32"),
            )
            for _ in range(2)
        ]
        model = keras.Sequential(
            [keras.Input((224, 224, 3)), keras.layers.Flatten(), keras.layers.Dense(1)]
        )
        model.compile(keras.optimizers.SGD(1e-6), "mse")
        begin = model.get_weights()
        at = (WARM_UP, num_steps - 1)

        def run(data: Any) -> tuple[float, list[np.ndarray]]:
            model.set_weights(begin)
            first, last = timed(model, data, at)
            weights = model.get_weights()
            return 1e3 * (last.seconds - first.seconds) / (at[1] - at[0]), weights

        def echoed(echo: str, where: str) -> tuple[float, list[np.ndarray]]:
            with keras_echo.EchoingPyDataset(
                source(batches, num_steps),
                echo_factor=4.0,
                echo=echo,
                placement=where,
                seed=0,
                max_queue_size=1,
            ) as dataset:
                return run(dataset)

        resident = keras.tree.map_structure(on_device, batches)
        run(source(resident, num_steps))  # compiles
        rows = [
            {"batches": "resident", "ms": run(source(resident, num_steps))[0]},
            {"batches": "NumPy", "ms": run(source(batches, num_steps))[0]},
        ]
        for echo in ("batch", "example"):
            found = {where: [] for where in ("host", "device")}
            for _ in range(NUM_ROUNDS):
                for where, runs in found.items():
                    runs.append(echoed(echo, where))
            host, device = (runs[-1][1] for runs in found.values())
            again = found["host"][0][1]
            for where, runs in found.items():
                rows.append(
                    {
                        "batches": f"{echo} echo, {where}",
                        "ms": statistics.median(milliseconds for milliseconds, _ in runs),
                        "all_ms": [milliseconds for milliseconds, _ in runs],
                        "is_equal": all(map(np.array_equal, host, device)),
                        "is_repeatable": all(map(np.array_equal, host, again)),
                        "largest_difference": max(
                            float(np.max(np.abs(one - other)))
                            for one, other in zip(host, device, strict=True)
                        ),
                    }
                )
        return rows

    def trace(self, folder: Path | None) -> list[dict[str, Any]]:
        """One short window, kept and looked at."""
        import keras

        import keras_echo
        from keras_echo.profiling.report import render, to_dict

        num_steps = 40
        read = source(self.batches, num_steps, 2 * self.step_seconds)
        with (
            tempfile.TemporaryDirectory() as logs,
            keras_echo.EchoingPyDataset(read, steps_per_epoch=num_steps) as dataset,
        ):
            callback = keras_echo.DataEchoCallback(dataset, logs, profile_steps=3, adapt=False)
            timed(self.model, dataset, (1, num_steps - 1), callbacks=[callback])
            found = keras_echo.analyze(logs)
            for number, one in enumerate(found):
                print(render(one), flush=True)
                if folder is not None and number == 0:
                    folder.mkdir(parents=True, exist_ok=True)
                    backend = keras.backend.backend()
                    shutil.copy(one.path, folder / f"{backend}.xplane.pb")
            return [{**to_dict(one), "bytes": Path(one.path).stat().st_size} for one in found]


def convolutional(image: int, blocks: int) -> keras.Model:
    """A classifier whose step takes the longer the more blocks it has."""
    import keras

    model = keras.Sequential(
        [
            keras.Input((image, image, 3)),
            *(
                keras.layers.Conv2D(WIDTH, 3, padding="same", activation="relu")
                for _ in range(blocks)
            ),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def dense(size: int, blocks: int) -> keras.Model:
    """A model of large matrix products, of which nothing has to be tuned."""
    import keras

    layers = [keras.layers.Dense(size, activation="relu") for _ in range(blocks)]
    model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-6), "mse")
    return model


def on_device(array: Any) -> Any:
    """Puts it there."""
    import keras

    placed = keras.ops.convert_to_tensor(array)
    return placed.clone() if keras.backend.backend() == "torch" else placed


def source(batches: list[tuple], num_steps: int, read_seconds: float = 0.0) -> Any:
    """These batches in turn; a read sleeps, and `seconds` has what each took."""
    import keras

    class Source(keras.utils.PyDataset):
        """Batches that take a given time to read."""

        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []

        def __len__(self) -> int:
            return num_steps

        def __getitem__(self, index: int) -> tuple:
            begin = time.perf_counter()
            if read_seconds:
                time.sleep(read_seconds)
            self.seconds.append(time.perf_counter() - begin)
            return batches[index % len(batches)]

    return Source()


def timed(
    model: keras.Model,
    data: Any,
    at: tuple[int, ...],
    begins: list[float] | None = None,
    callbacks: list[Any] | None = None,
) -> list[Clock]:
    """Calls `fit()`; returns what was at the begin of these steps, the device being waited for.

    When the host began with each step is appended to `begins`.
    """
    import keras

    import keras_echo

    clocks: list[Clock] = []

    class Clocks(keras.callbacks.Callback):
        """Waits for the device at these steps only."""

        def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
            if begins is not None:
                begins.append(time.perf_counter())
            if batch in at:
                keras.ops.convert_to_numpy(self.model.trainable_variables[-1])
                is_echoing = isinstance(data, keras_echo.EchoingPyDataset)
                stats = data.stats() if is_echoing else keras_echo.EchoStats()
                clocks.append(Clock(time.perf_counter(), stats.fresh_batches, stats.extra_uses))

    model.fit(data, verbose=0, callbacks=[*(callbacks or []), Clocks()])
    return clocks


def described(decision: keras_echo.EchoDecision) -> dict[str, Any]:
    """A decision, and what it rests on."""
    found = decision.breakdown
    return {
        "step": decision.step,
        "ratio": decision.ratio,
        "factor": decision.factor,
        "reason": decision.reason,
        "window_ratio": found.ratio,
        "bound": found.bound,
        "origin": found.origin,
        "hardware": found.hardware,
        "missing": found.missing,
        "step_ms": 1e3 * found.step_seconds,
        "wait_ms": 1e3 * found.wait_seconds,
        "upstream_ms": 1e3 * found.upstream_seconds,
        "downstream_ms": 1e3 * found.downstream_seconds,
        "starved_fraction": found.starved_fraction,
        "held_fraction": found.held_fraction,
    }


def measure(folder: Path | None, is_on_cpu: bool, write: Callable[[dict], None]) -> dict[str, Any]:
    """All parts on the backend of this process; what is known so far is written after each."""
    import keras

    bench = Bench(SMALL if is_on_cpu else Sizes(), is_fitted=not is_on_cpu)
    result: dict[str, Any] = {
        "backend": keras.backend.backend(),
        "accelerator": accelerator(),
        "versions": versions(),
        "model": bench.found(),
    }
    parts: dict[str, Callable[[], Any]] = {
        **{f"ratio {ratio:g}": lambda ratio=ratio: bench.ratio(ratio) for ratio in RATIOS},
        "trace": lambda: bench.trace(folder),
        "ahead": bench.ahead,
        "placement": bench.placement,
        "cost": bench.cost,
    }
    for part, measured in parts.items():
        began = time.perf_counter()
        try:
            result[part] = measured()
        except Exception as error:
            result[part] = {"error": repr(error)}
        print(f"{part}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        write(result)
    return result


def ratios(result: dict[str, Any]) -> str:
    """R as it is and as it was found, and what came of it."""
    rows = []
    for row in _rows([result[f"ratio {ratio:g}"] for ratio in RATIOS]):
        last = row["decisions"][-1]
        parts = row["whole"], row["second_half"]
        rows.append(
            [
                f"{row['true_ratio']:.2f}",
                f"{last['ratio']:.2f} ({last['bound']}, {last['origin']})",
                f"{statistics.mean(row['in_memory_ms']):.1f}",
                f"{last['downstream_ms']:.1f}",
                f"{last['factor']:.2f}",
                *(f"{part[key]:.2f}" for part in parts for key in ("steps", "fresh")),
                f"{row['whole']['extra_uses']}",
            ]
        )
    header = ["R", "R found", "ms per step", "found", "e at the end", "steps", "fresh"]
    return markdown([*header, "steps, second half", "fresh, second half", "extra uses"], rows)


def placements(result: dict[str, Any]) -> str:
    """Milliseconds per step by where batches wait."""
    rows = [
        [row["batches"], f"{row['ms']:.1f}", "yes" if row.get("is_equal", True) else "no"]
        for row in _rows(result["placement"])
    ]
    return markdown(["batches", "ms per step", "same weights"], rows)


def cost(result: dict[str, Any]) -> str:
    """What the callback costs where there is nothing to gain."""
    return markdown(
        ["time with the callback over: bare source", "without it", "highest factor"],
        [
            [f"{row['over_bare']:.3f}", f"{row['over_without']:.3f}", f"{row['highest_factor']:g}"]
            for row in _rows([result["cost"]])
        ],
        num_texts=0,
    )


def ahead(result: dict[str, Any]) -> str:
    """How far the host runs ahead, and what that does to batches."""
    rows = [
        [f"{row['step_ms']:.1f}", f"{row['steps_ahead']:.1f}", *map(str, counts)]
        for row in _rows([result["ahead"]])
        for counts in [(row["steps"], row["fresh"], row["extra_uses"])]
    ]
    header = ["ms per step", "steps ahead", "steps at R = 0.7", "fresh batches", "extra uses"]
    return markdown(header, rows, num_texts=0)


def _rows(found: Any) -> list[dict[str, Any]]:
    """Those that were measured; a part that failed has its error instead."""
    return [row for row in found if "error" not in row] if isinstance(found, list) else []


def main() -> None:
    """Measures in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="little work, to see that this runs")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--traces", type=Path, help="a folder in which to keep a trace")
    args = parser.parse_args()
    if args.cpu:
        os.environ.update(ON_CPU)
    if not args.cpu and accelerator() is None:
        sys.exit("No accelerator is there that this backend can use. With --cpu, this runs anyway.")
    result = measure(args.traces, args.cpu, lambda known: write_json(args.json, known))
    print(f"{result['backend']} on {result['accelerator'] or 'no accelerator'}, {result['model']}")
    for table in (ratios, ahead, placements, cost):
        print(f"\n{table(result)}")
    for part, found in result.items():
        if isinstance(found, dict) and "error" in found:
            print(f"\n{part}: {found['error']}")


if __name__ == "__main__":
    main()
