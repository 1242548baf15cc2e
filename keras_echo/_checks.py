"""Checks of arguments, which say what an argument must be."""

from __future__ import annotations

import math
from numbers import Integral, Real

from keras_echo._messages import expected


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises ValueError if `value` is none of the choices, of which the first is the default."""
    if value not in choices:
        shown = " or ".join(map(repr, choices))
        raise ValueError(expected(name, f"be {shown}", value, f"The default is {choices[0]!r}"))


def check_count(name: str, value: object, least: int) -> int:
    """Returns a count as a Python int, which JSON knows.

    Raises:
        TypeError: If it is no integer; NumPy's are.
        ValueError: If it is below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(expected(name, "be an integer", value, f"Pass {least} or more"))
    if value < least:
        raise ValueError(expected(name, f"be at least {least}", value, f"Pass {least} or more"))
    return int(value)


def check_count_or_auto(name: str, value: object, least: int, counted: str) -> int:
    """Returns a count as `check_count` does, where the argument may also be "auto".

    Args:
        name: The argument's name.
        value: What isn't "auto".
        least: The least count.
        counted: What it is a number of, for messages.
    """
    try:
        return check_count(name, value, least)
    except (TypeError, ValueError) as error:
        must, remedy = f'be {counted} or "auto"', f"Pass {least} or more, or leave it out"
        raise type(error)(expected(name, must, value, remedy)) from None


def check_real(name: str, value: object, remedy: str) -> float:
    """Returns a real number as a Python float.

    Raises:
        TypeError: If it is none; NumPy's are.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(expected(name, "be a real number", value, remedy))
    return float(value)


def check_seconds(name: str, value: object) -> float:
    """Returns a time in seconds as a Python float.

    Raises:
        TypeError: If it is no real number.
        ValueError: If it isn't above 0, or is infinite.
    """
    remedy = "Pass a number of seconds, such as 30.0"
    seconds = check_real(name, value, remedy)
    if not 0 < seconds < math.inf:
        raise ValueError(expected(name, "be above 0 and finite", value, remedy))
    return seconds
