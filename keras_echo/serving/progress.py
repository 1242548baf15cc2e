"""How far a training has come, which may lag behind what it was served."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.echoing.state import State
    from keras_echo.memory.batch import Batch
    from keras_echo.serving.feed import Feed


class Progress:
    """What resuming asks of a dataset.

    Args:
        feed: What it serves.
        as_json: Makes JSON of a state, which it asks for.
        load: Goes on from such JSON.
        shorten_epoch: Has the next epochs of `fit()` so many steps; None for all of them.
    """

    def __init__(
        self,
        feed: Feed,
        as_json: Callable[[Callable[[], State]], dict[str, Any]],
        load: Callable[[dict[str, Any]], None],
        shorten_epoch: Callable[[int | None], None],
    ) -> None:
        self._feed = feed
        self._as_json = as_json
        self._first = 0
        self.load = load
        self.shorten_epoch = shorten_epoch

    def begin(self) -> None:
        """Training begins, where the stream stands now."""
        self._first = self._feed.begin_training()

    def trained(self, num_steps: int) -> None:
        """Training has taken so many steps since it began."""
        self._feed.trained(self._first + num_steps)

    def end(self) -> None:
        """Training has ended."""
        self._feed.end_training()

    def state_dict(self, num_steps: int) -> dict[str, Any]:
        """The dataset's state after so many steps.

        Raises:
            LookupError: If it hasn't served so many.
        """
        return self._as_json(partial(self._feed.state_after, self._first + num_steps))

    def first_batch(self) -> Batch:
        """The next batch, only to peek at."""
        return self._feed.first()

    @property
    def is_iterated(self) -> bool:
        """Whether training gets its batches by `as_tf_dataset` or `as_grain`."""
        return self._feed.is_iterated
