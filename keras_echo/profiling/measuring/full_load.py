"""What a fresh batch costs while all readers are at work. Pure: no clock, no I/O, no Keras.

Readers that share something (a network, a disk, the cores) are faster when others idle, readers
that don't are not. So the time of a read that had the source to itself tells little about what
reading can deliver, and only the time in which all readers worked counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keras_echo.profiling.measuring.spans import overlap

if TYPE_CHECKING:
    from collections.abc import Sequence


def full_load_seconds(reads: Sequence[tuple[float, float]], num_readers: int) -> float | None:
    """Works out the seconds from one fresh batch to the next at full load.

    Args:
        reads: Their starts, by any clock, and seconds. Reads that aren't over yet are missing,
            which makes a reader look idle that is not; that time is left out.
        num_readers: How many reads can run at the same time.

    Returns:
        Seconds at full load over the reads that were made in them, where one that was only partly
        made in them counts partly. None if they were not as many as there are readers.
    """
    spans = np.array([(start, start + seconds) for start, seconds in reads if seconds > 0])
    if len(spans) < num_readers:
        return None
    times = np.concatenate((spans[:, 0], spans[:, 1]))
    order = np.argsort(times, kind="stable")
    change = np.repeat((1, -1), len(spans))[order]
    times, running = times[order], np.cumsum(change)
    # No two of these overlap, but where one ends another may begin: `overlap` needs no more.
    is_full = running[:-1] >= num_readers
    full = np.column_stack((times[:-1], times[1:]))[is_full]
    shares = overlap(full, spans) / (spans[:, 1] - spans[:, 0])
    num_made = float(np.sum(shares))
    return float(np.sum(full[:, 1] - full[:, 0])) / num_made if num_made >= num_readers else None
