"""What a dataset says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EchoStats:
    """Counts and times of an `EchoingPyDataset`.

    Attributes:
        steps: Batches served to training.
        fresh_batches: Source batches among them that were used at least once; with
            `echo="example"`, the examples that were used at least once, in batches.
        passes: Complete passes over the source.
        skipped_reads: Reads that failed and were skipped (`on_error="skip"`).
        reads: Reads done, those of batches that still wait for their use included.
        read_seconds: Seconds that the readers were busy, summed over all of them.
        wait_seconds: Seconds that training waited in `__getitem__`.
        echo_factor: The echoing factor now.
    """

    steps: int
    fresh_batches: int
    passes: int
    skipped_reads: int
    reads: int
    read_seconds: float
    wait_seconds: float
    echo_factor: float
