"""Decisions as TensorBoard shows them: curves, texts, and a layout that puts curves together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from keras_echo._messages import sentence
from keras_echo.profiling.report import render
from keras_echo.tensorboard.writer import EventWriter

if TYPE_CHECKING:
    import os

    from keras_echo.stats import EchoStats
    from keras_echo.tuner import EchoDecision

_CHARTS = {
    "Echoing factor and R": ("factor", "ratio", "window_ratio"),
    "Milliseconds per fresh batch and per step": ("upstream_ms", "downstream_ms"),
    "Share of time waiting, share of fresh batches": ("wait_fraction", "fresh_fraction"),
}


class DecisionLog:
    """Writes what a `DataEchoCallback` measures and decides, as `keras_echo/...`.

    Args:
        logdir: The TensorBoard log directory.

    Raises:
        OSError: It cannot be written to; any method may raise that.
    """

    def __init__(self, logdir: str | os.PathLike[str]) -> None:
        self._writer = EventWriter(logdir)
        self._last = (0, 0)
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
        text = f"{sentence(decision.reason)} This window:\n\n```\n{render(found)}\n```"
        self._writer.text(_tag("decision"), text, step=decision.step)
        self._writer.flush()

    def progress(self, step: int, factor: float, stats: EchoStats | None) -> None:
        """Writes where an epoch ended.

        Args:
            step: Optimizer steps so far.
            factor: The echoing factor.
            stats: What the dataset counted so far; None where there is no dataset of ours.
        """
        self._scalars(step, factor=factor)
        if stats is not None:
            fresh, steps = stats.fresh_batches - self._last[0], stats.steps - self._last[1]
            self._last = (stats.fresh_batches, stats.steps)
            share = fresh / steps if steps > 0 else math.nan
            self._scalars(step, fresh_fraction=share, passes=stats.passes)
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
