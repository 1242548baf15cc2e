"""Where a callback's traces and curves lie, and what becomes of them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import warnings
import weakref
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from keras_echo._messages import expected
from keras_echo.tensorboard.decisions import DecisionLog

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from keras_echo.stats import EchoStats
    from keras_echo.tuner import EchoDecision

_TRACES_KEPT = 5


class Logbook:
    """Writes into a log directory as long as it can be written to; training goes on without it.

    Args:
        log_dir: A TensorBoard log directory. None: there are no curves, and the traces lie in a
            temporary directory as long as this object lives.

    Attributes:
        directory: Where traces go.
    """

    def __init__(self, log_dir: str | os.PathLike[str] | None) -> None:
        self._is_writing = log_dir is not None
        self._log: DecisionLog | None = None
        self._traces: deque[Path] = deque()
        if log_dir is None:
            self.directory = Path(tempfile.mkdtemp(prefix="keras_echo-"))
            weakref.finalize(self, shutil.rmtree, self.directory, ignore_errors=True)
        else:
            self.directory = Path(log_dir)

    def decision(self, decision: EchoDecision) -> None:
        """Writes a decision; of the traces, the last few are kept."""
        self._write(lambda log: log.decision(decision))
        if decision.breakdown.path is not None:
            self._traces.append(Path(decision.breakdown.path).parent)
            if len(self._traces) > _TRACES_KEPT:
                shutil.rmtree(self._traces.popleft(), ignore_errors=True)

    def progress(self, step: int, factor: float, stats: EchoStats | None) -> None:
        """Writes where an epoch ended; see `DecisionLog.progress`."""
        self._write(lambda log: log.progress(step, factor, stats))

    def close(self) -> None:
        """Closes the file of curves; writing opens another one."""
        log, self._log = self._log, None
        if log is not None:
            with contextlib.suppress(OSError):  # each write has been flushed
                log.close()

    def _write(self, write: Callable[[DecisionLog], None]) -> None:
        if not self._is_writing:
            return
        try:
            if self._log is None:
                self._log = DecisionLog(self.directory)
            write(self._log)
        except OSError as error:
            self._is_writing = False
            message = expected(
                f"log_dir {self.directory}",
                "take TensorBoard's curves",
                error,
                "Training goes on without them; give a directory that can be written to",
            )
            warnings.warn(message, RuntimeWarning, stacklevel=4)
