"""`keras-echo analyze`: what traces say of a training, and what would make it wait less."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_echo._messages import expected, printable
from keras_echo.adapting.remedies import remedies
from keras_echo.adapting.report import listed
from keras_echo.profiling.analyze import analyze_each
from keras_echo.profiling.measuring.result import StepBreakdown
from keras_echo.profiling.report import render, to_dict
from keras_echo.profiling.traces.limits import TraceError

if TYPE_CHECKING:
    from collections.abc import Sequence


_HOW_TO_KNOW = """
What would help besides echoing depends on why reading is slow, which these traces don't say. To
find out, train for some fifty steps with

    dataset = keras_echo.EchoingPyDataset(source)
    callback = keras_echo.DataEchoCallback(dataset, log_dir, adapt=False)
    model.fit(dataset, callbacks=[callback])

and analyze log_dir, or print(callback.report()).
"""


def main_analyze(logdir: str | os.PathLike[str], as_json: bool = False) -> int:
    """Runs `keras-echo analyze`: the reports on stdout, a line for each bad file on stderr.

    Args:
        logdir: A TensorBoard log directory, or one trace file.
        as_json: Whether to print a JSON list in place of the reports.

    Returns:
        The exit code: 0, or 2 where no trace could be read.
    """
    try:
        found = analyze_each(logdir)
    except TraceError as error:
        found = [(Path(logdir), error)]
    good = [result for _, result in found if isinstance(result, StepBreakdown)]
    for _, result in found:
        if isinstance(result, TraceError):
            sys.stderr.write(f"{printable(str(result))}\n")
    if as_json:
        text = json.dumps([_data(result) for result in good], indent=2, allow_nan=False) + "\n"
    else:
        text = "".join(f"{render(result)}\n\n" for result in good)[:-1] + _advice(good)
    return _write(text) or (0 if good else 2)


def _data(found: StepBreakdown) -> dict[str, Any]:
    return to_dict(found) | {"remedies": [asdict(remedy) for remedy in remedies(found)]}


def _advice(found: Sequence[StepBreakdown]) -> str:
    """What would help, by the last trace that says why reading is slow."""
    known = [one for one in found if one.reading is not None and one.steps]
    if known:
        return f"\nWhat would help, by the last of them:\n{listed(remedies(known[-1]))}\n"
    return _HOW_TO_KNOW if any(one.input_bound for one in found) else ""


def _write(text: str) -> int:
    """Writes to stdout; returns an exit code, which is 0 too where the reader has seen enough."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        # A path may hold what the terminal cannot show.
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except OSError as error:
        # What is still buffered must not be tried again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            remedy = "Write it elsewhere"
            sys.stderr.write(expected("stdout", "take the report", error.strerror, remedy) + "\n")
            return 1
    return 0
