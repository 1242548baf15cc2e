"""The echoing factor, shared between those who choose it and those who use it."""

from __future__ import annotations

import math
import threading
from numbers import Real
from typing import TYPE_CHECKING, Protocol

from keras_echo._messages import expected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class Upstream(Protocol):
    """What reads for an echo that isn't an `EchoingPyDataset`'s, and says what it does."""

    def reads(self) -> Sequence[Any]:
        """The last reads, by their end: `keras_echo.metering.Read`s."""

    def num_uses(self) -> int:
        """How often elements were used so far."""


class EchoFactor:
    """How many times each upstream output is used: a float >= 1 that may change at any time.

    One `EchoFactor` can be shared by several datasets, by `keras_echo.echo` and by a callback.
    All methods are thread-safe.

    Args:
        value: The factor to start with.
        max_uses: How often an output may be used while no fresh one is there: a float >= 1. None:
            training waits for a fresh one instead. `keras_echo.echo` always waits.
        min_uses: How often an output is used at least while reading is so far ahead that it would
            have to wait: a float >= 1. None: as often as the factor says. Only batches that an
            `EchoingPyDataset` repeats make room like that.

    Attributes:
        upstreams: What reads for the echoes of `keras_echo.echo` that share this.

    Raises:
        TypeError: If one of them isn't a real number.
        ValueError: If one is below 1, infinite or not a number.

    Examples:
        >>> factor = EchoFactor(2.0)
        >>> factor.value = 3.5
        >>> factor
        EchoFactor(3.5)
    """

    def __init__(
        self, value: float = 1.0, max_uses: float | None = None, min_uses: float | None = None
    ) -> None:
        self._value = check_factor("echo_factor", value)
        self.max_uses = max_uses
        self.min_uses = min_uses
        self.upstreams: list[Upstream] = []
        self._followers: list[Callable[[float], object]] = []
        self._lock = threading.Lock()

    @property
    def value(self) -> float:
        """The factor now."""
        return self._value

    @value.setter
    def value(self, value: float) -> None:
        value = check_factor("echo_factor", value)
        # Followers are told under the lock, so that all of them end with the same, latest value.
        with self._lock:
            self._value = value
            for follow in self._followers:
                follow(value)

    @property
    def max_uses(self) -> float | None:
        """How often an output may be used while no fresh one is there; None: not more often."""
        return self._max_uses

    @max_uses.setter
    def max_uses(self, value: float | None) -> None:
        self._max_uses = None if value is None else check_factor("max_uses", value)

    @property
    def min_uses(self) -> float | None:
        """How often an output is used at least while reading is far ahead; None: not less."""
        return self._min_uses

    @min_uses.setter
    def min_uses(self, value: float | None) -> None:
        self._min_uses = None if value is None else check_factor("min_uses", value)

    def follow(self, follower: Callable[[float], object]) -> None:
        """Calls `follower` with the value now, and again with every value set later."""
        with self._lock:
            self._followers.append(follower)
            follower(self._value)

    def __repr__(self) -> str:
        return f"EchoFactor({self._value})"


def check_factor(name: str, value: float) -> float:
    """Returns an echoing factor as a float.

    Raises:
        TypeError: If it isn't a real number.
        ValueError: If it is below 1, infinite or not a number.
    """
    remedy = "1.0 means no echoing, 4.0 uses every upstream output four times"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(expected(name, "be a real number", value, remedy))
    try:
        factor = float(value)
    except OverflowError:  # an integer that no float holds
        factor = math.inf
    if not 1 <= factor < math.inf:
        raise ValueError(expected(name, "be finite and at least 1", value, remedy))
    return factor
