"""What would make training wait less, from what was measured. Pure: no clock, no I/O, no Keras.

A fresh batch is worth more than a repeated one. So the remedies that bring fresh batches come
first, the simplest before the others, and echoing is for what is left. One that needs more, such as
memory, has to bring half as much again as a simpler one to come before it.

How much each would bring is predicted from what reads consist of (`Reading`):

- *More readers*: what a batch costs is a + b / readers, where a is what readers wait for one
  another. With one reader, nothing is known of a, and the remedy says so; with more, half of them
  were tried. The processors and the interpreter's lock set limits that more readers don't move.
- *Processes* move the limit of the interpreter's lock. Threads that hold it all the time also keep
  training from it, whose steps take longer then; how much shorter they would be isn't known.
- *A cache* leaves the part of a pass that doesn't fit.
- *A longer queue*: the reads that were timed, sent through it (`keras_echo.profiling.measuring`).

Nothing is suggested that would bring less than a tenth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from keras_echo.reading.reader_count import MOST_WAITING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keras_echo.profiling.measuring.reading import Reading
    from keras_echo.profiling.measuring.result import StepBreakdown

Kind = Literal["readers", "processes", "queue", "cache", "augment", "source", "echo"]

_GAIN = 1.1  # of the rate of fresh batches, below which nothing is suggested
_NOISE = 1.05  # of R
_DEARER = 1.5  # what a remedy must bring more than a simpler one to come before it
_HEADROOM = 0.95  # of a step: readers just as fast as training leave it waiting now and then
_ENOUGH = 1.03  # times what the most readers would need
_LOCKED = 0.7  # share of the time, from which on the interpreter's lock is the limit
_COMPUTES = 0.5  # share of a read, from which on processors are what it needs
_MIXED = 0.2  # share of a read, from which on it is worth while to do it elsewhere


@dataclass(frozen=True)
class Remedy:
    """Something to do about a training that waits for its input, and what it would bring.

    Attributes:
        kind: Which one it is.
        change: What to change, as in "12 readers instead of 4".
        how: The code that does it.
        ratio: R after it.
        fresh_per_second: Fresh batches that training would get in a second.
        steps_per_second: Optimizer steps in a second, each fresh batch used once; for "echo", as
            often as it says.
        provided: What has to hold for it that wasn't measured; empty if nothing.
    """

    kind: Kind
    change: str
    how: str
    ratio: float
    fresh_per_second: float
    steps_per_second: float
    provided: str = ""


def remedies(found: StepBreakdown, *, max_factor: float = math.inf) -> list[Remedy]:
    """Ranks what would make training wait less.

    Args:
        found: What was measured.
        max_factor: The most that each batch may be used.

    Returns:
        The remedies, the best first; none where nothing is to be gained, or nothing is known.
    """
    up, down = found.upstream_seconds, found.downstream_seconds
    if not (math.isfinite(found.ratio) and up > 0 and down > 0) or found.bound == "upper":
        return []
    fresh = list(_fresh(found.reading, up, down)) if found.reading else []
    ranked: list[Remedy] = []
    for remedy in fresh:  # from the simplest on
        place = len(ranked)
        while place and remedy.fresh_per_second > _DEARER * ranked[place - 1].fresh_per_second:
            place -= 1
        ranked.insert(place, remedy)
    if found.ratio > _NOISE:
        ranked.append(_echo(up, down, min(found.ratio, max_factor)))
    return ranked


class _Idea(NamedTuple):
    """What might be done.

    Attributes:
        kind: See `Remedy`.
        change: The same.
        how: The same.
        seconds: What a fresh batch costs then.
        step_seconds: What a step takes then.
        provided: See `Remedy`.
    """

    kind: Kind
    change: str
    how: str
    seconds: float
    step_seconds: float
    provided: str = ""


def _fresh(reading: Reading, up: float, down: float) -> Iterator[Remedy]:
    """The remedies that bring fresh batches, the simplest first."""
    for idea in (
        *_readers(reading, up, down),
        *_processes(reading, up, down),
        *_source(reading, down),
        *_augment(reading, down),
        *_cache(reading, up, down),
    ):
        rate = 1 / max(idea.seconds, idea.step_seconds)
        if rate * max(up, down) >= _GAIN:
            yield Remedy(
                idea.kind, idea.change, idea.how, idea.seconds / down, rate, rate, idea.provided
            )
    if reading.queue_seconds >= _GAIN * reading.longer_queue_seconds:
        rate = 1 / reading.longer_queue_seconds
        size = int(reading.longer_queue)
        yield Remedy(
            "queue",
            f"{size} batches read ahead instead of {reading.setup.queue_size}",
            f"EchoingPyDataset(..., max_queue_size={size})",
            up / down,
            rate,
            rate,
        )


def _readers(reading: Reading, up: float, down: float) -> Iterator[_Idea]:
    setup = reading.setup
    if setup.is_sequential or setup.is_auto:
        return
    serial, parallel, provided = _shared(reading, up)
    locked = 0.0 if setup.uses_processes else _known(reading.locked_seconds)
    least = max(reading.compute_seconds / setup.num_cores, locked)
    computes = reading.compute_seconds > _COMPUTES * reading.read_seconds
    number, seconds = _fewest(
        lambda number: max(serial + parallel / number, least),
        setup.num_readers,
        setup.num_cores if computes else MOST_WAITING,
        down,
    )
    if number:
        kind = "processes" if setup.uses_processes else "readers"
        yield _Idea(
            "readers",
            f"{number} {kind} instead of {setup.num_readers}",
            f'EchoingPyDataset(..., workers={number}), or workers="auto"',
            seconds,
            down,
            provided,
        )


def _processes(reading: Reading, up: float, down: float) -> Iterator[_Idea]:
    setup = reading.setup
    locked = _known(reading.locked_seconds)
    if setup.is_sequential or setup.uses_processes or locked < _LOCKED * max(up, down):
        return
    # Without those that wait for the lock meanwhile.
    alone = max(reading.compute_seconds, reading.read_seconds - (setup.num_readers - 1) * locked)
    number, seconds = _fewest(
        lambda number: max(alone / number, reading.compute_seconds / setup.num_cores),
        1,
        setup.num_cores,
        down,
    )
    if number:
        yield _Idea(
            "processes",
            f"{number} processes instead of {setup.num_readers} threads",
            f"EchoingPyDataset(..., workers={number}, use_multiprocessing=True)",
            seconds,
            0.0,  # a step waits for the lock, too
            f"the source can be pickled, and a step takes {1e3 * seconds:.3g} ms at most where it "
            "needn't wait for the interpreter's lock",
        )


def _source(reading: Reading, down: float) -> Iterator[_Idea]:
    setup = reading.setup
    if setup.is_sequential and reading.compute_seconds > _COMPUTES * reading.read_seconds:
        yield _Idea(
            "source",
            "reading in parallel inside the source, which computes on one thread",
            "map(..., num_parallel_calls=tf.data.AUTOTUNE), DataLoader(..., num_workers=...), or "
            "a keras.utils.PyDataset with workers=",
            max(
                reading.compute_seconds / setup.num_cores,
                reading.read_seconds - reading.compute_seconds,
            ),
            down,
            "it can be read in parallel",
        )


def _augment(reading: Reading, down: float) -> Iterator[_Idea]:
    shares = reading.waiting_fraction, 1 - reading.waiting_fraction
    if reading.setup.is_sequential and min(shares) > _MIXED:
        yield _Idea(
            "augment",
            "random augmentation behind the echo",
            "EchoingPyDataset(..., augment=...)",
            reading.read_seconds - reading.compute_seconds,
            max(down, reading.compute_seconds),  # once for each use
            "what computes is augmentation",
        )


def _cache(reading: Reading, up: float, down: float) -> Iterator[_Idea]:
    setup = reading.setup
    pass_bytes = setup.num_batches * setup.batch_bytes
    if not (setup.can_be_cached and pass_bytes > 0 and math.isfinite(setup.free_bytes)):
        return
    kept_bytes = min(pass_bytes, setup.free_bytes / 2)
    share = kept_bytes / pass_bytes
    yield _Idea(
        "cache",
        f"a cache for {share:.0%} of a pass",
        f"EchoingPyDataset(..., cache=keras_echo.Cache(memory_bytes={math.ceil(kept_bytes)}))",
        (1 - share) * up,
        down,
        "there is a second pass, and the same index gives the same batch in it",
    )


def _echo(up: float, down: float, factor: float) -> Remedy:
    return Remedy(
        "echo",
        f"each batch used {factor:.1f} times",
        "model.fit(dataset, callbacks=[keras_echo.DataEchoCallback(dataset)])",
        up / down,
        1 / max(up, factor * down),
        factor / max(up, factor * down),
    )


def _shared(reading: Reading, up: float) -> tuple[float, float, str]:
    """What a batch costs for any number of readers, what is divided by it, and what has to hold."""
    number, fewer = reading.setup.num_readers, reading.fewer_readers
    if number == 1 or not math.isfinite(reading.fewer_seconds):
        return 0.0, up * number, "more readers don't share what the present ones have"
    parallel = (reading.fewer_seconds - reading.usual_seconds) / (1 / fewer - 1 / number)
    serial = min(max(0.0, reading.usual_seconds - parallel / number), reading.usual_seconds)
    scale = up / reading.usual_seconds
    return scale * serial, scale * (reading.usual_seconds - serial) * number, ""


def _fewest(cost: Callable[[int], float], number: int, most: int, down: float) -> tuple[int, float]:
    """The fewest readers above `number` that are enough, and what a batch costs then.

    Enough are those with which training needn't wait, or that do as well as the most. 0 if there is
    no such number.
    """
    if most <= number:
        return 0, math.nan
    enough = max(_HEADROOM * down, _ENOUGH * cost(most))
    best = next(one for one in range(number + 1, most + 1) if cost(one) <= enough)
    return best, cost(best)


def _known(value: float) -> float:
    return value if math.isfinite(value) else 0.0
