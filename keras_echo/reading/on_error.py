"""What becomes of a read that fails: it raises, is tried again, or is skipped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from keras_echo._checks import check_count, check_real
from keras_echo._messages import expected
from keras_echo.reading.stream import EmptyPassError

_MOST_DOUBLINGS = 1000  # that a float has room for
_LEAST_READS = 100  # before which a share of them says little


@dataclass(frozen=True, kw_only=True)
class Skip:
    """Leaves out reads that fail, up to a limit; the read that exceeds it raises.

    Args:
        most: How many reads may be skipped in all; None for any number.
        most_fraction: Which share of all reads may be skipped, in (0, 1]; None for any share. It is
            judged from 100 reads on.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If it is out of range.

    Examples:
        >>> dataset = keras_echo.EchoingPyDataset(source, on_error=keras_echo.Skip(most=20))
    """

    most: int | None = None
    most_fraction: float | None = None

    def __post_init__(self) -> None:
        if self.most is not None:
            check_count("most", self.most, 1)
        if self.most_fraction is not None:
            check_real("most_fraction", self.most_fraction, "Pass 0.01 for one read in a hundred")
            if not 0 < self.most_fraction <= 1:
                raise ValueError(
                    expected(
                        "most_fraction",
                        "be above 0 and at most 1",
                        self.most_fraction,
                        "Pass 0.01 for one read in a hundred",
                    )
                )

    def allows(self, num_skipped: int, num_reads: int) -> bool:
        """Whether so many of so many reads may be skipped."""
        if self.most is not None and num_skipped > self.most:
            return False
        if self.most_fraction is None or num_reads < _LEAST_READS:
            return True
        return num_skipped <= self.most_fraction * num_reads


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Tries a read that fails again: after `wait_seconds`, then twice as long, and so on.

    Args:
        times: Further tries after the first one.
        wait_seconds: The wait before the first of them; before number n, from 0, it is
            `wait_seconds * 2**n`.
        then: What becomes of a read that fails each time: `"raise"`, `"skip"` or a `Skip`.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If it is out of range.

    Examples:
        >>> retry = keras_echo.Retry(times=5, wait_seconds=0.5, then="skip")
        >>> dataset = keras_echo.EchoingPyDataset(source, on_error=retry, read_timeout=30)
    """

    times: int = 3
    wait_seconds: float = 1.0
    then: Literal["raise", "skip"] | Skip = "raise"

    def __post_init__(self) -> None:
        check_count("times", self.times, 1)
        check_real("wait_seconds", self.wait_seconds, "Pass 0 or more")
        if not 0 <= self.wait_seconds < math.inf:
            raise ValueError(
                expected(
                    "wait_seconds", "be finite and at least 0", self.wait_seconds, "Pass 0 or more"
                )
            )
        if not (isinstance(self.then, Skip) or self.then in ("raise", "skip")):
            raise ValueError(
                expected(
                    "then",
                    "be 'raise', 'skip' or a keras_echo.Skip",
                    self.then,
                    "The default is 'raise'",
                )
            )


@dataclass(frozen=True)
class Policy:
    """What becomes of reads that fail.

    Attributes:
        retry: How they are tried again, if they are.
        skip: Which of them may be skipped; None: all raise.
    """

    retry: Retry | None
    skip: Skip | None

    def again(self, error: BaseException, num_failures: int) -> float | None:
        """Seconds after which to try once more what failed `num_failures` times; None: no more."""
        retry = self.retry
        if retry is None or num_failures > retry.times:
            return None
        if not isinstance(error, Exception) or isinstance(error, EmptyPassError):
            return None
        return retry.wait_seconds * 2.0 ** min(num_failures - 1, _MOST_DOUBLINGS)


def policy(on_error: object) -> Policy:
    """The policy that is meant by the argument `on_error`.

    Raises:
        ValueError: If it is none of its values.
    """
    retry, then = (on_error, on_error.then) if isinstance(on_error, Retry) else (None, on_error)
    if isinstance(then, Skip):
        return Policy(retry, then)
    if then in ("raise", "skip"):
        return Policy(retry, Skip() if then == "skip" else None)
    raise ValueError(
        expected(
            "on_error",
            "be 'raise', 'skip', a keras_echo.Skip or a keras_echo.Retry",
            on_error,
            "The default is 'raise'",
        )
    )
