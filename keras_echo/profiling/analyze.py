"""Finds the traces below a directory, whoever recorded them, and says what each of them says."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from keras_echo._messages import expected
from keras_echo.profiling import names
from keras_echo.profiling.measuring.breakdown import breakdown
from keras_echo.profiling.measuring.extract import extract
from keras_echo.profiling.measuring.result import StepBreakdown
from keras_echo.profiling.traces import kineto, xspace
from keras_echo.profiling.traces.limits import TraceError
from keras_echo.profiling.traces.xspace import unreadable

_XSPACE = ".xplane.pb"
_HINT = (
    "Give a TensorBoard log directory with profiles in it, such as DataEchoCallback's log_dir, "
    "or one that TensorBoard's profile_batch= or the backend's profiler wrote to"
)


def analyze(logdir: str | os.PathLike[str]) -> list[StepBreakdown]:
    """Says, for every trace below a directory, what a step and its input cost.

    Any trace will do: keras_echo's own, those of Keras's TensorBoard callback, of plain
    `tf.profiler` and `jax.profiler` sessions, and of torch.profiler, whether its
    `tensorboard_trace_handler` or `export_chrome_trace()` wrote it. Other JSON files are passed
    over.

    Args:
        logdir: A TensorBoard log directory, or one trace file.

    Returns:
        One breakdown per trace, ordered by path. Traces that cannot be read are left out, each
        with a warning.

    Raises:
        TraceError: There is no such directory, or no trace in it that can be read.
    """
    found = analyze_each(logdir)
    good = [result for _, result in found if isinstance(result, StepBreakdown)]
    bad = [result for _, result in found if isinstance(result, TraceError)]
    if not good:
        raise bad[0]
    for error in bad:
        warnings.warn(str(error), stacklevel=2)
    return good


def analyze_file(path: str | os.PathLike[str], *, echo_factor: float = 1.0) -> StepBreakdown:
    """Says what a step and its input cost in one trace.

    Args:
        path: The file.
        echo_factor: The factor that was in force; only used where the trace shows no reads.

    Returns:
        The breakdown.

    Raises:
        TraceError: The file cannot be read, or is no trace.
    """
    read = xspace.read if str(path).endswith(_XSPACE) else kineto.read
    return breakdown(extract(read(path)), echo_factor=echo_factor, path=str(path))


def analyze_each(logdir: str | os.PathLike[str]) -> list[tuple[Path, StepBreakdown | TraceError]]:
    """Says the same as `analyze`, with the error for all that cannot be read.

    Args:
        logdir: A TensorBoard log directory, or one trace file.

    Returns:
        Pairs of a file (or a directory that cannot be read) and what it says, ordered by path.

    Raises:
        TraceError: There is no such directory, or no trace in it.
    """
    results: list[tuple[Path, StepBreakdown | TraceError]] = []
    paths, blocked = _traces(Path(logdir))
    for path in paths:
        try:
            results.append((path, analyze_file(path)))
        except TraceError as error:
            results.append((path, error))
        except MemoryError:
            remedy = "Record fewer steps"
            must = expected(str(path), "fit in memory", "more than there is", remedy)
            results.append((path, TraceError(must)))
    results += [(Path(error.filename), unreadable(error.filename, error)) for error in blocked]
    return sorted(results, key=lambda result: result[0])


def _traces(root: Path) -> tuple[list[Path], list[OSError]]:
    """Returns the trace files, and an error for each directory that cannot be read."""
    try:
        is_file, is_directory = root.is_file(), root.is_dir()
    except OSError as error:
        raise unreadable(root, error) from None
    if is_file:
        if root.name.endswith(_XSPACE) or kineto.is_trace(root):
            return [root], []
        must = f"be an *{_XSPACE} file or a trace that torch.profiler exported"
        raise TraceError(expected(str(root), must, "another kind of file", _HINT))
    if not is_directory:
        raise TraceError(expected("logdir", "be a directory", str(root), _HINT))
    found: list[Path] = []
    blocked: list[OSError] = []
    seen: set[str] = set()
    # TensorBoard follows links as well, but a directory counts once, and loops end.
    for folder, folders, files in os.walk(root, onerror=blocked.append, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # Windows that are still being recorded lie in hidden directories.
        folders[:] = sorted(name for name in folders if not name.startswith(names.WINDOW))
        found += [
            path
            for path in (Path(folder, name) for name in files if not name.startswith("."))
            if path.name.endswith(_XSPACE)
            or (path.name.endswith(kineto.SUFFIXES) and kineto.is_trace(path))
        ]
    if not found and not blocked:
        raise TraceError(expected("logdir", "hold profiler traces", str(root), _HINT))
    return found, blocked
