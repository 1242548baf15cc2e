"""Why reading is slow: what a dataset knows of it by now."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from keras_echo.machine import free_bytes, num_cores
from keras_echo.profiling.measuring.reading import Reading, Setup, reading

if TYPE_CHECKING:
    from keras_echo.probe import Probe


def why_slow(probe: Probe, locked_fraction: float, step_seconds: float) -> Reading | None:
    """Asks a dataset what its reads consist of; see `Reading`.

    Args:
        probe: The dataset's side.
        locked_fraction: Share of the time in which somebody held the interpreter's lock.
        step_seconds: What a step takes that doesn't wait.

    Returns:
        The answer; None where nothing was read, or where the reads are those of another pipeline.
    """
    if not probe.sees_dataset:
        return None
    how = probe.input
    setup = Setup(
        num_readers=probe.num_readers,
        queue_size=how.queue_size,
        num_cores=num_cores(),
        is_sequential=how.is_sequential,
        is_auto=probe.is_auto,
        uses_processes=how.uses_processes,
        can_be_cached=how.can_be_cached,
        num_batches=math.nan if how.num_batches is None else how.num_batches,
        batch_bytes=probe.batch_bytes or math.nan,
        free_bytes=free_bytes(),
    )
    return reading(
        [read for read in probe.recent_reads() if read.end > probe.readers_since],
        setup,
        locked_fraction=locked_fraction,
        trials=probe.trials(),
        step_seconds=step_seconds,
    )
