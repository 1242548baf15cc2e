"""A stream of batches as a Grain dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_echo._messages import expected
from keras_echo.serving.iterator_peeks import Peeks

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.memory.batch import Batch
    from keras_echo.serving.feed import Feed

_PEEKS = Peeks(most_in_a_row=2, most_elements=2)


def as_grain(
    feed: Feed,
    get_state: Callable[[], dict[str, Any]],
    set_state: Callable[[dict[str, Any]], None],
) -> Any:
    """Makes the dataset, a `grain.IterDataset`.

    Args:
        feed: Serves the stream.
        get_state: Returns where the stream stands.
        set_state: Goes on from there.

    Raises:
        ImportError: If Grain isn't installed.
    """
    try:
        import grain
    except ImportError as error:
        raise ImportError(
            expected("grain", "be installed", error, "pip install grain, or use as_tf_dataset")
        ) from error

    class Batches(grain.DatasetIterator[Any]):
        def __init__(self) -> None:
            super().__init__()
            self._batches = feed.iterate(_PEEKS)

        def __next__(self) -> Batch:
            return next(self._batches)

        def get_state(self) -> dict[str, Any]:
            return get_state()

        def set_state(self, state: dict[str, Any]) -> None:
            set_state(state)

    class Stream(grain.IterDataset[Any]):
        def __iter__(self) -> Batches:
            return Batches()

    return Stream()
