"""What a hit of the cache costs: in plain copies from memory, in plain reads from files.

    python benchmarks/cache_speed.py [--rounds 25] [--json FILE]

A plain copy is `numpy.copyto` into memory that is there already; a plain read is `readinto` of the
same file into such memory, without looking at what was read. Files come from the page cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from workload import ENVIRONMENT, markdown, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.reading.cache import Cache, CachedReads
    from keras_echo.reading.stream import Fresh

MEGABYTES = (1, 10, 40)
MOST_MEGABYTES = 400  # of batches that are kept: far more than a processor's cache holds


def num_batches(megabytes: int) -> int:
    """How many batches of that size are kept."""
    return MOST_MEGABYTES // megabytes


def batch(index: int, megabytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images, and their labels, of 1 MB in all for each 250 kilobytes of float32."""
    draw = np.random.default_rng(index)
    num_rows = 8 * megabytes
    return draw.random((num_rows, 31249), "float32"), draw.integers(0, 9, (num_rows,), "int32")


def filled(cache: Cache, megabytes: int) -> CachedReads:
    """A cache that holds all batches."""
    from keras_echo.metering import Meter
    from keras_echo.reading.cache import CachedReads
    from keras_echo.reading.stream import Fresh, Position, Read

    cached = CachedReads(cache, num_batches(megabytes), Meter())
    for index in range(num_batches(megabytes)):
        read = Read(Position(0, index), index)
        cached(read, lambda read: Fresh(read.position, batch(read.index, megabytes)))
    return cached


def hitting(cached: CachedReads, megabytes: int) -> Callable[[int], object]:
    """Serves the batch of an index from the cache."""
    from keras_echo.reading.stream import Position, Read

    reads = [Read(Position(1, index), index) for index in range(num_batches(megabytes))]

    def miss(read: Read) -> Fresh:
        raise AssertionError("it is all cached")

    return lambda index: cached(reads[index], miss)


def copying(megabytes: int) -> Callable[[int], object]:
    """Copies the batch of an index into memory that is used for all of them."""
    batches = [batch(index, megabytes) for index in range(num_batches(megabytes))]
    into = [np.zeros_like(part) for part in batches[0]]

    def copy(index: int) -> None:
        for part, place in zip(batches[index], into, strict=True):
            np.copyto(place, part)

    return copy


def reading(folder: Path) -> Callable[[int], object]:
    """Reads the file of an index into memory that is used for all of them."""
    paths = {int(path.stem): path for path in folder.rglob("*.batch")}
    into = np.zeros(max(path.stat().st_size for path in paths.values()), "uint8")

    def read(index: int) -> None:
        with paths[index].open("rb", buffering=0) as file:
            file.readinto(into)

    return read


def seconds_each(action: Callable[[int], object], num: int) -> float:
    """Seconds that it takes on average, for one index after the other."""
    started = time.perf_counter()
    for index in range(num):
        action(index)
    return (time.perf_counter() - started) / num


def compare(
    hit: Callable[[int], object], plain: Callable[[int], object], megabytes: int, num_rounds: int
) -> dict[str, float]:
    """Medians of both, in milliseconds, and of hit / plain within a round, which alternate."""
    num = num_batches(megabytes)
    both = (hit, plain)
    for action in both:
        seconds_each(action, num)
    rounds = []
    for number in range(num_rounds):
        order = both if number % 2 else both[::-1]
        took = {action: seconds_each(action, num) for action in order}
        rounds.append((took[hit], took[plain]))
    return {
        "hit_ms": 1e3 * statistics.median(hit for hit, _ in rounds),
        "plain_ms": 1e3 * statistics.median(plain for _, plain in rounds),
        "ratio": statistics.median(hit / plain for hit, plain in rounds),
        "least": min(hit / plain for hit, plain in rounds),
        "most": max(hit / plain for hit, plain in rounds),
    }


def measure(megabytes: int, num_rounds: int) -> dict[str, object]:
    """Compares hits of batches of one size."""
    from keras_echo.reading.cache import Cache

    plenty = 2 * MOST_MEGABYTES * 10**6
    in_memory = hitting(filled(Cache(memory_bytes=plenty), megabytes), megabytes)
    result: dict[str, object] = {
        "megabytes": megabytes,
        "num_rounds": num_rounds,
        "memory": compare(in_memory, copying(megabytes), megabytes, num_rounds),
    }
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(directory=folder, directory_bytes=plenty, key="benchmark")
        in_files = hitting(filled(cache, megabytes), megabytes)
        result["files"] = compare(in_files, reading(Path(folder)), megabytes, num_rounds)
    return result


def hits(results: list[dict]) -> str:
    """What a hit takes, beside what it can't do without."""
    rows = [
        [
            place,
            f"{one['megabytes']}",
            f"{one[place]['hit_ms']:.3f}",
            f"{one[place]['plain_ms']:.3f}",
            f"{one[place]['ratio']:.2f}",
            f"{one[place]['least']:.2f} to {one[place]['most']:.2f}",
            f"{1 / one[place]['ratio']:.2f}",
        ]
        for place in ("memory", "files")
        for one in results
    ]
    header = ["kept in", "MB", "hit, ms", "plain, ms"]
    header += ["time, hit / plain", "in single rounds", "speed, hit / plain"]
    return f"Rounds: {results[0]['num_rounds']}.\n\n{markdown(header, rows, num_texts=1)}"


def main() -> None:
    """Measures all sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path, help="where to write the results")
    args = parser.parse_args()
    os.environ.update({"KERAS_BACKEND": "jax", **ENVIRONMENT})  # no backend is used
    results = [measure(megabytes, args.rounds) for megabytes in MEGABYTES]
    write_json(args.json, results)
    print(hits(results))


if __name__ == "__main__":
    main()
