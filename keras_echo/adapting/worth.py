"""What each use of a batch is worth: how much it lowers the loss on data that no step has seen.

Pure: no clock, no I/O, no Keras.

With momentum, the loss goes on falling, or rising, for several steps after a batch was used. So the
decreases d of the loss in successive steps are an autoregressive process, whose input depends on
the number k of the use:

    d_t = a_1 d_(t-1) + a_2 d_(t-2) + c_k + noise

What the k-th use brings in the end is c_k / (1 - a_1 - a_2). Without momentum that is the mean
decrease of its steps. With it, that mean would tell as much of the uses before.

The worth of a use falls with its number, or there is nothing left to learn from the batch. So where
several uses do harm together, from the second one on or up to the last one, one less is better, and
that is seen in a fraction of the steps that the last one alone would need.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_SAMPLES = 2000
"""Steps that count: what was of use early in training may not be later."""

FEWEST_SAMPLES = 8
"""Steps per use from which on something is said."""

SURE = 2.0
"""Standard errors by which the worth of uses must differ from 0 for the factor to be moved."""

LEAST_LIMIT = 1.25
"""The lowest limit: one batch in four is still used twice, to see when that helps again."""

_ORDER = 2  # steps that a decrease depends on
_MOST_MEMORY = 0.9  # a_1 + a_2 at the usual momentum; where all steps are alike, it can't be seen
_SELDOM = 0.1  # share of the batches that must have a use for it to be the last one


class Sample(NamedTuple):
    """A step, and by how much the loss on unseen data fell in it.

    Attributes:
        use: Which use of its batch it was.
        decrease: By how much the loss fell.
        before: The same of the steps before it.
    """

    use: int
    decrease: float
    before: tuple[float, ...]


class Estimate(NamedTuple):
    """What a use is worth, or several on average.

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


class Estimates(dict[int, Estimate]):
    """What the uses are worth, by their numbers."""

    def together(self, first: int, last: int) -> Estimate | None:
        """What the uses from one to another are worth on average; None if one isn't known."""
        if any(use not in self for use in range(first, last + 1)):
            return None
        means, errors, _ = zip(*(self[use] for use in range(first, last + 1)), strict=True)
        num = sum(self[use].num for use in range(first, last + 1))
        return Estimate(sum(means) / len(means), math.hypot(*errors) / len(errors), num)

    def harm(self, last: int) -> tuple[int, int, Estimate] | None:
        """Which uses surely do harm: some from the second one on, or some up to the last one.

        Returns:
            The first and the last of them, and what they are worth on average.
        """
        last = max((use for use in self if use <= last), default=1)
        tails = [(first, last) for first in range(last, 1, -1)]
        heads = [(2, end) for end in range(2, last)]
        for first, end in tails + heads:
            estimate = self.together(first, end)
            if estimate is not None and estimate.harms:
                return first, end, estimate
        return None

    def relative(self) -> Estimates:
        """What each use is worth over what the first one is.

        None where the first one isn't surely of use: then all of them are lost in noise.
        """
        first = self.get(1)
        if first is None or not first.helps:
            return Estimates()
        found = Estimates()
        for use, estimate in self.items():
            share = estimate.mean / first.mean
            error = math.hypot(estimate.standard_error, share * first.standard_error) / first.mean
            found[use] = Estimate(share, error if use > 1 else 0.0, estimate.num)
        return found


class Worth:
    """Learns from stretches of training what each use is worth.

    Args:
        most_samples: The last steps that count; None for all.
    """

    def __init__(self, most_samples: int | None = MOST_SAMPLES) -> None:
        self._samples: deque[Sample] = deque(maxlen=most_samples)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The steps that count."""
        return tuple(self._samples)

    def go_on_from(self, samples: Sequence[Sample]) -> None:
        """Takes what was learnt elsewhere for what is known."""
        self._samples.clear()
        self._samples.extend(samples)

    def add(self, uses: Sequence[int], decreases: Sequence[float]) -> None:
        """Takes in a stretch of successive steps.

        Args:
            uses: For each step, which use of its batch it was, from 1; 0: not known.
            decreases: By how much the loss on unseen data fell in it; NaN: not known.
        """
        for end in range(_ORDER, len(uses)):
            before = tuple(decreases[end - _ORDER : end])
            if uses[end] and math.isfinite(sum(before, start=decreases[end])):
                self._samples.append(Sample(uses[end], decreases[end], before))

    def forget(self, above: float) -> None:
        """Forgets the uses of higher numbers: they begin anew."""
        self.go_on_from([sample for sample in self._samples if sample.use <= above])

    def estimates(self) -> Estimates:
        """What is known of the uses that were seen often enough."""
        numbers = np.array([sample.use for sample in self._samples], int)
        uses, counts = np.unique(numbers, return_counts=True)
        uses = uses[counts >= FEWEST_SAMPLES]
        if not len(uses):
            return Estimates()
        is_known = np.isin(numbers, uses)
        decreases = np.array([sample.decrease for sample in self._samples])[is_known]
        before = np.array([sample.before for sample in self._samples])[is_known]
        is_of_use = (numbers[is_known, None] == uses).astype(float)
        memory = np.linalg.lstsq(np.hstack([before, is_of_use]), decreases)[0][:_ORDER]
        if not memory.sum() <= _MOST_MEMORY:
            memory = np.array([0.0] * (_ORDER - 1) + [_MOST_MEMORY])
        num_each = is_of_use.sum(0)
        lasting = 1.0 - memory.sum()
        inputs = (decreases - before @ memory) / lasting
        means = is_of_use.T @ inputs / num_each
        rest = inputs - is_of_use @ means
        variance = rest @ rest / max(1, len(rest) - len(uses) - _ORDER)
        return Estimates(
            (int(use), Estimate(float(mean), math.sqrt(variance / num), int(num)))
            for use, mean, num in zip(uses, means, num_each, strict=True)
        )


def last_use(factor: float) -> int:
    """The number of a batch's last use, but for one that hardly any batch has."""
    return max(1, math.ceil(factor - _SELDOM))


def next_limit(estimates: Estimates, factor: float, limit: float) -> float:
    """The most uses that are of use: one less where the last one harms, one more where it helps.

    Args:
        estimates: What the uses are worth.
        factor: The echoing factor now.
        limit: The most uses so far; infinity for any number.

    Returns:
        The most uses from now on, at least `LEAST_LIMIT`.
    """
    last = last_use(factor)
    if estimates.harm(last) is not None:
        return max(LEAST_LIMIT, last - 1.0)
    estimate = estimates.get(last)
    is_limited = factor > limit - _SELDOM
    return last + 1.0 if estimate is not None and estimate.helps and is_limited else limit
