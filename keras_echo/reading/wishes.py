"""How a source is read: as it wishes, but for what is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_echo._messages import expected
from keras_echo.reading.cache import Cache, CachedReads
from keras_echo.reading.source import Parallelism, Source
from keras_echo.reading.worker_process import pickled

if TYPE_CHECKING:
    from keras_echo.metering import Meter


def steps_per_epoch_of(given: int | None, source: Source) -> int:
    """The optimizer steps in an epoch.

    Raises:
        ValueError: If they are not given and the source has no length.
    """
    steps = source.length if given is None else given
    if steps is None:
        raise ValueError(
            expected(
                "steps_per_epoch",
                "be given for a source without a length",
                given,
                "Pass the number of optimizer steps in an epoch",
            )
        )
    return steps


def cached_reads(cache: Cache, source: Source, meter: Meter) -> CachedReads:
    """What keeps the batches of a source.

    Raises:
        TypeError: If `cache` is no `Cache`.
        ValueError: If the source's batches can't be kept by their index.
    """
    if not isinstance(cache, Cache):
        raise TypeError(
            expected(
                "cache", "be a keras_echo.Cache", cache, "Pass keras_echo.Cache(memory_bytes=2**30)"
            )
        )
    if source.no_cache is not None:
        why, remedy = source.no_cache
        raise ValueError(expected("cache", f"be None for {why}", cache, remedy))
    assert source.length is not None
    return CachedReads(cache, source.length, meter)


def parallelism_of(
    source: Source,
    workers: int | None,
    use_multiprocessing: bool | None,
    max_queue_size: int | None,
) -> Parallelism:
    """How to read the source: as it wishes, but for what is given.

    Raises:
        ValueError: If the source can't be read that way.
    """
    wish = source.parallelism
    wanted = Parallelism(
        wish.workers if workers is None else workers,
        wish.use_multiprocessing if use_multiprocessing is None else use_multiprocessing,
        wish.max_queue_size if max_queue_size is None else max_queue_size,
    )
    if source.is_sequential and (wanted.workers, wanted.use_multiprocessing) != (1, False):
        raise ValueError(
            expected(
                "workers",
                "be 1, and use_multiprocessing False, for a source that is read in sequence",
                (workers, use_multiprocessing),
                "Give the source itself more workers, or pass a keras.utils.PyDataset",
            )
        )
    if wanted.use_multiprocessing:
        pickled(source)
    return wanted
