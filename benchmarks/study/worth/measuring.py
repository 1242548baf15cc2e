"""What uses are worth, measured in a run by the library's own windows, and followed."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import keras

from keras_echo.adapting.unseen_loss import UnseenLoss
from keras_echo.adapting.worth import Worth, next_limit
from keras_echo.adapting.worth_window import NUM_STEPS, NUM_UNSEEN, WorthWindow
from keras_echo.dataset import probe_of
from study.plan import FOLLOW
from study.worth import plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import keras_echo
    from keras_echo.memory.batch import Batch
    from keras_echo.reading.stream import Position
    from study.plan import Setting

loss_of = functools.cache(UnseenLoss)  # a model is compiled once in a process

_QUEUE = 10  # batches that are read ahead


class Upcoming:
    """The fresh batches of a dataset, all that are read ahead: so each run takes the same ones."""

    def __init__(self, dataset: keras_echo.EchoingPyDataset) -> None:
        self._unseen = probe_of(dataset).unseen
        self.number_of_use = self._unseen.number_of_use

    def upcoming(self) -> dict[Position, Callable[[], Batch]]:
        """See `keras_echo.probe.Unseen`."""
        self._unseen.fill(_QUEUE, 60.0)
        return self._unseen.upcoming()


class Measuring(keras.callbacks.Callback):
    """Measures what uses are worth, and lets the factor follow that where it is to.

    Args:
        dataset: What is trained on, with a factor of R at first where worth is followed.
        setting: Says how much is measured, and whether the factor follows.

    Attributes:
        worth: What was learnt so far.
        windows: For each window, the uses and the decreases of the loss.
        cost_steps: What measuring took so far, in steps.
    """

    def __init__(self, dataset: keras_echo.EchoingPyDataset, setting: Setting) -> None:
        super().__init__()
        self.worth = Worth()
        self.windows: list[tuple[list[int], list[float]]] = []
        self.cost_steps = 0.0
        self._dataset = dataset
        self._ratio = setting.factor
        self._limit = math.inf
        self._follows = setting.method == FOLLOW
        self._num_steps = 0
        self._window: WorthWindow | None = None
        self._recording: Iterator[None] = iter(())

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this before each step."""
        if self._window is not None:
            self._advance(self._window)
        if self._window is None and self._is_due():
            self._window = WorthWindow(
                Upcoming(self._dataset), self._loss, lambda: None, self._num_steps
            )
            self._recording = self._window.record()
            self._advance(self._window)
        self._num_steps += 1

    @property
    def _loss(self) -> UnseenLoss:
        return loss_of(self.model)

    def _is_due(self) -> bool:
        if not self._follows:
            return self._num_steps % (2 * NUM_STEPS) == NUM_STEPS
        cost_steps = (NUM_STEPS + 1) * NUM_UNSEEN * plan.STEPS_PER_LOSS
        return self.cost_steps + cost_steps <= plan.FOLLOW_BUDGET * self._num_steps

    def _advance(self, window: WorthWindow) -> None:
        self.cost_steps += NUM_UNSEEN * plan.STEPS_PER_LOSS
        _ = self.model  # which has Keras bring the variables up to date
        if next(self._recording, self) is not self:
            return
        self._window = None
        self.worth.add(window.uses, window.decreases)
        self.windows.append((window.uses, window.decreases))
        if self._follows:
            self._follow()

    def _follow(self) -> None:
        """As the library's callback does."""
        factor = self._dataset.echo_factor
        limit = next_limit(self.worth.estimates(), factor, self._limit)
        if limit > self._limit:
            self.worth.forget(above=self._limit)
        self._limit = limit
        self._dataset.echo_factor = min(self._ratio, limit)
