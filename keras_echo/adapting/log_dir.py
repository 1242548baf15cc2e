"""Where a callback's traces and curves lie, and what becomes of them."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import warnings
import weakref
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from keras_echo._messages import expected, printable, sentence
from keras_echo._temporary import remove
from keras_echo.adapting.remedies import remedies
from keras_echo.adapting.report import listed
from keras_echo.metering import EchoStats
from keras_echo.profiling.report import render
from keras_echo.tensorboard.event_file import EventWriter
from keras_echo.tensorboard.markdown import block, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.adapting.tuner import EchoDecision
    from keras_echo.adapting.worth import Estimates

_TRACES_KEPT = 5

_CHARTS = {
    "Echoing factor and R": ("factor", "ratio", "window_ratio"),
    "Milliseconds per fresh batch and per step": ("upstream_ms", "downstream_ms"),
    "A read: milliseconds waiting, computing": ("read_wait_ms", "read_compute_ms"),
    "Readers": ("num_readers",),
    "What each use of a batch lowers the loss on unseen data": ("worth_[0-9]+",),
    "Share of time waiting, share of fresh batches": ("wait_fraction", "fresh_fraction"),
}


class LogDir:
    """Writes into a log directory as long as it can be written to; training goes on without it.

    One that is removed meanwhile is made again, with the curves from then on.

    Args:
        log_dir: A TensorBoard log directory. None: there are no curves, and the traces lie in a
            temporary directory as long as this object lives.

    Attributes:
        directory: Where traces go.
    """

    def __init__(self, log_dir: str | os.PathLike[str] | None) -> None:
        self._is_writing = log_dir is not None
        self._has_warned = False
        self._log: Curves | None = None
        self._traces: deque[Path] = deque()
        self._last = EchoStats()
        if log_dir is None:
            self.directory = Path(tempfile.mkdtemp(prefix="keras_echo-"))
            weakref.finalize(self, remove, self.directory, os.getpid())
        else:
            self.directory = Path(log_dir)

    def decision(self, decision: EchoDecision) -> None:
        """Writes a decision; of the traces, the last few are kept."""
        self._write(lambda log: log.decision(decision))
        if decision.breakdown.path is not None:
            self._traces.append(Path(decision.breakdown.path).parent)
            if len(self._traces) > _TRACES_KEPT:
                shutil.rmtree(self._traces.popleft(), ignore_errors=True)

    def begin(self, stats: EchoStats) -> None:
        """Training begins; what the dataset counted before is none of its epochs'."""
        self._last = stats

    def progress(self, step: int, factor: float, stats: EchoStats) -> None:
        """Writes where an epoch ended; see `Curves.progress`."""
        last, self._last = self._last, stats
        self._write(lambda log: log.progress(step, factor, stats, last))

    def worth(self, step: int, estimates: Estimates) -> None:
        """Writes what the uses of a batch are worth; see `keras_echo.adapting.worth`."""
        self._write(lambda log: log.worth(step, estimates))

    def close(self) -> None:
        """Closes the file of curves; writing opens another one."""
        log, self._log = self._log, None
        if log is not None:
            with contextlib.suppress(OSError):  # each write has been flushed
                log.close()

    def _write(self, write: Callable[[Curves], None]) -> None:
        if not self._is_writing:
            return
        try:
            was_removed = self._log is not None and not self._log.path.exists()
            if was_removed:
                self.close()
            if self._log is None:
                self._log = Curves(self.directory)
            write(self._log)
            if was_removed:
                self._warn("stay", "a directory that was removed", "Its curves begin anew")
        except OSError as error:
            self._is_writing = False
            self.close()
            remedy = "Training goes on without them; give a directory that can be written to"
            self._warn("take TensorBoard's curves", error, remedy)

    def _warn(self, must: str, received: object, remedy: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            message = expected(f"log_dir {self.directory}", must, received, remedy)
            warnings.warn(message, RuntimeWarning, stacklevel=5)


class Curves:
    """Writes what a `DataEchoCallback` measures and decides, as `keras_echo/...`.

    Args:
        logdir: The TensorBoard log directory.

    Attributes:
        path: The file.

    Raises:
        OSError: It cannot be written to; any method may raise that.
    """

    def __init__(self, logdir: str | os.PathLike[str]) -> None:
        self._writer = EventWriter(logdir)
        self.path = self._writer.path
        charts = {title: [_tag(name) for name in names] for title, names in _CHARTS.items()}
        self._writer.layout("keras_echo", charts)

    def decision(self, decision: EchoDecision) -> None:
        """Writes a decision and what it rests on."""
        found = decision.breakdown
        self._scalars(
            decision.step,
            factor=decision.factor,
            ratio=decision.ratio,
            window_ratio=found.ratio,
            upstream_ms=1e3 * found.upstream_seconds,
            downstream_ms=1e3 * found.downstream_seconds,
            wait_fraction=found.wait_fraction,
        )
        if found.reading is not None:
            self._scalars(
                decision.step,
                read_wait_ms=1e3 * found.reading.read_seconds * found.reading.waiting_fraction,
                read_compute_ms=1e3 * found.reading.compute_seconds,
                num_readers=found.reading.setup.num_readers,
            )
        known = f"{render(found)}\n\nWhat would help:\n{listed(remedies(found))}"
        reason = quoted(sentence(decision.reason))
        text = f"{reason} This window:\n\n{block(known)}"
        self._writer.text(_tag("decision"), text, step=decision.step)
        self._writer.flush()

    def progress(self, step: int, factor: float, stats: EchoStats, last: EchoStats) -> None:
        """Writes where an epoch ended.

        Args:
            step: Optimizer steps so far.
            factor: The echoing factor.
            stats: What the dataset counted so far.
            last: What it had counted where the epoch began.
        """
        self._scalars(step, factor=factor)
        if stats.steps:
            steps = stats.steps - last.steps
            fresh = stats.fresh_batches - last.fresh_batches
            share = fresh / steps if steps > 0 else math.nan
            self._scalars(step, fresh_fraction=share, passes=stats.passes)
        if (num_skipped := stats.skipped_reads - last.skipped_reads) > 0:
            self._writer.text(_tag("skipped"), _skipped(num_skipped, stats), step=step)
        self._writer.flush()

    def worth(self, step: int, estimates: Estimates) -> None:
        """Writes what the uses of a batch are worth, a curve for each use."""
        self._scalars(step, **{f"worth_{use}": known.mean for use, known in estimates.items()})
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _scalars(self, step: int, **values: float) -> None:
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.scalar(_tag(name), value, step=step)


def _tag(name: str) -> str:
    return f"keras_echo/{name}"


def _skipped(num: int, stats: EchoStats) -> str:
    """The last so many reads that were skipped, as a list."""
    listed = stats.skipped[-num:]
    of_all = f", the last {len(listed)}" if len(listed) < num else ""
    lines = "\n".join(
        f"batch {read.index}: {printable(' '.join(read.error.split()))}" for read in listed
    )
    return f"Reads that were skipped: {num}{of_all}.\n\n{block(lines)}"
