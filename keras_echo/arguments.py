"""The arguments of `EchoingPyDataset`: checked, and completed by what the source wishes."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

from keras_echo import processes
from keras_echo._messages import expected
from keras_echo.sources import Parallelism

if TYPE_CHECKING:
    from keras_echo.sources import Source


def steps_per_epoch(given: int | None, source: Source) -> int:
    """The optimizer steps in an epoch.

    Raises:
        ValueError: If they are not given and the source has no length.
    """
    steps = source.length if given is None else given
    if steps is None:
        raise ValueError(
            expected(
                "steps_per_epoch",
                "be given for a source without a length",
                given,
                "Pass the number of optimizer steps in an epoch",
            )
        )
    return steps


def parallelism(
    source: Source,
    workers: int | None,
    use_multiprocessing: bool | None,
    max_queue_size: int | None,
) -> Parallelism:
    """How to read the source: as it wishes, but for what is given.

    Raises:
        ValueError: If the source can't be read that way.
    """
    wish = source.parallelism
    wanted = Parallelism(
        wish.workers if workers is None else workers,
        wish.use_multiprocessing if use_multiprocessing is None else use_multiprocessing,
        wish.max_queue_size if max_queue_size is None else max_queue_size,
    )
    if source.is_sequential and (wanted.workers, wanted.use_multiprocessing) != (1, False):
        raise ValueError(
            expected(
                "workers",
                "be 1, and use_multiprocessing False, for a source that is read in sequence",
                (workers, use_multiprocessing),
                "Give the source itself more workers, or pass a keras.utils.PyDataset",
            )
        )
    if wanted.use_multiprocessing:
        processes.pickled(source)
    return wanted


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
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
