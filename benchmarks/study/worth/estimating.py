"""From decreases of the loss to what uses are worth: stands in for `keras_echo.adapting.worth`."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Estimate(NamedTuple):
    """What a use is worth: by how much it lowers the loss, its standard error, steps seen."""

    mean: float
    standard_error: float
    num: int


class Worth:
    """Mean decreases of the loss by the number of the use."""

    def __init__(self) -> None:
        self._decreases: dict[int, list[float]] = {}

    def add(self, uses: Sequence[int], decreases: Sequence[float]) -> None:
        """Takes in a stretch of successive steps."""
        for use, decrease in zip(uses, decreases, strict=True):
            self._decreases.setdefault(use, []).append(decrease)

    def clear(self) -> None:
        """Forgets all."""
        self._decreases.clear()

    def estimates(self) -> dict[int, Estimate]:
        """What is known, by the number of the use."""
        return {
            use: Estimate(
                statistics.fmean(found), statistics.stdev(found) / math.sqrt(len(found)), len(found)
            )
            for use, found in sorted(self._decreases.items())
            if len(found) > 1
        }


def next_limit(estimates: dict[int, Estimate], factor: float, limit: float) -> float:
    """One use less where the last one surely harms, one more where it surely helps."""
    last = estimates.get(math.ceil(factor))
    if last is None or abs(last.mean) <= 2 * last.standard_error:
        return limit
    return max(1.0, factor + math.copysign(1, last.mean))
