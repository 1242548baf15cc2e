"""What each use of a batch is worth: how much it lowers the loss on data that no step has seen.

Pure: no clock, no I/O, no Keras.

With momentum, the loss goes on falling, or rising, for several steps after a batch was used. So the
decreases d of the loss in successive steps are an autoregressive process, whose input depends on
the number k of the use:

    d_t = a_1 d_(t-1) + a_2 d_(t-2) + c_k + noise

What the k-th use brings in the end is c_k / (1 - a_1 - a_2). Without momentum that is the mean
decrease of its steps. With it, that mean would tell as much of the uses before.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_SAMPLES = 2000
"""Steps that count: what was of use early in training may not be later."""

FEWEST_SAMPLES = 16
"""Steps of a use, and of all uses per number that is estimated, from which on something is said."""

SURE = 2.0
"""Standard errors by which the worth of a use must differ from 0 for the factor to be moved."""

LEAST_LIMIT = 1.25
"""The lowest limit: one batch in four is still used twice, to see when that helps again."""

_ORDER = 2  # steps that a decrease depends on
_MOST_MEMORY = 0.98  # of a_1 + a_2; a process beyond it never forgets
_SELDOM = 0.1  # share of the batches that a use must be made of to be the last one


class Estimate(NamedTuple):
    """What a use is worth.

    Attributes:
        mean: By how much it lowers the loss on unseen data in the end.
        standard_error: Of that.
        num: The steps that it was seen in.
    """

    mean: float
    standard_error: float
    num: int

    @property
    def helps(self) -> bool:
        """Whether it surely lowers the loss."""
        return self.mean > SURE * self.standard_error

    @property
    def harms(self) -> bool:
        """Whether it surely raises the loss."""
        return self.mean < -SURE * self.standard_error


class Worth:
    """Learns from stretches of training what each use is worth."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, float, tuple[float, ...]]] = deque(maxlen=MOST_SAMPLES)

    def add(self, uses: Sequence[int], decreases: Sequence[float]) -> None:
        """Takes in a stretch of successive steps.

        Args:
            uses: For each step, which use of its batch it was, from 1.
            decreases: By how much the loss on unseen data fell in it. NaN: not known.
        """
        for end in range(_ORDER, len(uses)):
            before = tuple(decreases[end - _ORDER : end])
            if math.isfinite(sum(before, start=decreases[end])):
                self._samples.append((uses[end], decreases[end], before))

    def clear(self) -> None:
        """Forgets all: another factor has other uses."""
        self._samples.clear()

    def estimates(self) -> dict[int, Estimate]:
        """What is known, by the number of the use; none where too little is."""
        numbers = np.array([sample[0] for sample in self._samples], int)
        uses, counts = np.unique(numbers, return_counts=True)
        known = np.isin(numbers, uses[counts > _ORDER])
        uses, counts = uses[counts > _ORDER], counts[counts > _ORDER]
        num_unknown = _ORDER + len(uses)
        if not len(uses) or known.sum() < FEWEST_SAMPLES * len(uses):
            return {}
        decreases = np.array([sample[1] for sample in self._samples])[known]
        before = np.array([sample[2] for sample in self._samples])[known]
        inputs = np.hstack([before, numbers[known, None] == uses])
        found, _, rank, _ = np.linalg.lstsq(inputs, decreases)
        memory = found[:_ORDER].sum()
        if rank < num_unknown or memory > _MOST_MEMORY:
            return {}
        rest = decreases - inputs @ found
        variance = rest @ rest / (len(rest) - num_unknown)
        errors = np.sqrt(variance * np.diag(np.linalg.inv(inputs.T @ inputs)))
        return {
            int(use): Estimate(float(mean), float(error), int(num))
            for use, mean, error, num in zip(
                uses,
                found[_ORDER:] / (1 - memory),
                errors[_ORDER:] / (1 - memory),
                counts,
                strict=True,
            )
            if num >= FEWEST_SAMPLES
        }


def last_use(factor: float) -> int:
    """The number of a batch's last use, but for one that hardly any batch has."""
    return max(1, math.ceil(factor - _SELDOM))


def next_limit(estimates: Mapping[int, Estimate], factor: float, limit: float) -> float:
    """The most uses that are of use: one less where the last one harms, one more where it helps.

    Args:
        estimates: What the uses are worth at this factor.
        factor: The echoing factor now.
        limit: The most uses so far; infinity for any number.

    Returns:
        The most uses from now on, at least `LEAST_LIMIT`.
    """
    last = last_use(factor)
    estimate = estimates.get(last)
    if estimate is None:
        return limit
    if estimate.harms:
        return max(LEAST_LIMIT, last - 1.0)
    is_limited = factor > limit - _SELDOM
    return last + 1.0 if estimate.helps and is_limited else limit


def relative(estimates: Mapping[int, Estimate]) -> dict[int, Estimate]:
    """What each use is worth over what the first one is.

    None where the first one isn't surely of use: then all of them are lost in noise.
    """
    first = estimates.get(1)
    if first is None or not first.helps:
        return {}
    found = {}
    for use, estimate in sorted(estimates.items()):
        share = estimate.mean / first.mean
        error = math.hypot(estimate.standard_error, share * first.standard_error) / first.mean
        found[use] = Estimate(share, error if use > 1 else 0.0, estimate.num)
    return found
