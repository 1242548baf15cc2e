"""Draws a profiled window: what a trace says of steps, waits and reads, for the documentation.

KERAS_BACKEND=jax python benchmarks/draw_window.py docs/images/window.png
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from workload import ENVIRONMENT, convolutional_model, source_class

if TYPE_CHECKING:
    from keras_echo.profiling.measuring.spans import Spans

STEP_COLOUR, WAIT_COLOUR, READ_COLOUR = "#673ab7", "#f4b183", "#6aa84f"
READ_SECONDS = 0.1
WORKERS = 2
ECHO_FACTOR = 1.0


def recorded() -> tuple[Spans, float]:
    """A window of training that starves, and its R."""
    import keras_echo
    from keras_echo.profiling.measuring.extract import extract
    from keras_echo.profiling.traces import xspace

    model = convolutional_model()
    source = source_class()(lambda: time.sleep(READ_SECONDS), workers=WORKERS)
    with (
        keras_echo.EchoingPyDataset(source, echo_factor=ECHO_FACTOR, steps_per_epoch=80) as dataset,
        tempfile.TemporaryDirectory() as logs,
    ):
        callback = keras_echo.DataEchoCallback(
            dataset, logs, adapt=False, verbose=0, profile_freq=40
        )
        model.fit(dataset, verbose=0, callbacks=[callback])
        found = callback.decisions[-1].breakdown  # the first one lies behind the warm-up
        return extract(xspace.read(found.path)), found.ratio


def draw(spans: Spans, ratio: float, path: Path) -> None:
    """Draws a lane for the training thread and one for each reader."""
    from matplotlib.figure import Figure

    begin, end = 1e3 * spans.steps[0, 0], 1e3 * spans.steps[-1, 1]
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.add_subplot()

    def boxes(array, lane: float, colour: str, height: float = 0.8) -> None:
        shown = [(1e3 * s - begin, 1e3 * (e - s)) for s, e in array if 1e3 * e > begin]
        axes.broken_barh(
            shown, (lane - height / 2, height), facecolor=colour, edgecolor="white", linewidth=1
        )

    lanes = ["training", *(f"reader {number + 1}" for number in range(len(spans.reads)))]
    boxes(spans.steps, 0, STEP_COLOUR)
    boxes(spans.waits, 0, WAIT_COLOUR, height=0.5)
    for number, reads in enumerate(spans.reads, start=1):
        boxes(reads, number, READ_COLOUR)
    for number, (start, stop) in enumerate(spans.steps):
        axes.text(1e3 * (start + stop) / 2 - begin, -0.62, str(number + 1), ha="center", fontsize=7)
    for colour, name in (
        (STEP_COLOUR, "step, by its number"),
        (WAIT_COLOUR, "wait for a batch"),
        (READ_COLOUR, "read"),
    ):
        axes.bar(0, 0, color=colour, label=name)
    axes.set_yticks(range(len(lanes)), lanes)
    axes.set_ylim(len(lanes) - 0.4, -0.9)
    axes.set_xlim(0, end - begin)
    axes.set_xlabel(f"milliseconds; echoing factor {ECHO_FACTOR:g}, R = {ratio:.1f}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Records and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    path = parser.parse_args().path
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    draw(*recorded(), path)
    os._exit(0)  # TensorFlow may hang in the interpreter's shutdown


if __name__ == "__main__":
    main()
