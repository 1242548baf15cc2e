"""What uses are worth, measured in a run: the one place that knows how that is done."""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import keras
import numpy as np

import keras_echo
from study.plan import FOLLOW
from study.training import batches_read
from study.worth import plan
from study.worth.estimating import Worth, next_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from study.plan import Setting
    from study.workload import Batch, Workload


class Watched(keras_echo.EchoingPyDataset):
    """An echoing dataset that knows which use of its batch a step made.

    Attributes:
        last_use: That of the last step, from 1.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._num_uses: Counter[int] = Counter()
        self._served = 0
        self.last_use = 0

    def __getitem__(self, index: int) -> Batch:
        """Serves the next batch."""
        batch = super().__getitem__(index)
        self._served = zlib.crc32(np.ascontiguousarray(batch[0]))
        return batch

    def trained(self) -> None:
        """To be called after each step: a batch that was served may only have been peeked at."""
        self._num_uses[self._served] += 1
        self.last_use = self._num_uses[self._served]


@functools.cache
def loss_of(model: Any) -> Callable[[list[Any], Batch], Any]:
    """The loss of a batch under values of a model's variables, compiled."""

    @jax.jit
    def loss(values: list[Any], batch: Batch) -> Any:
        x, y = batch
        state = zip(model.variables, values, strict=True)
        with keras.StatelessScope(state_mapping=state):
            return model.compute_loss(x=x, y=y, y_pred=model(x, training=False), training=False)

    return loss


@dataclass
class Window:
    """Takes the loss on unseen batches before and after each step of a stretch.

    Attributes:
        dataset: What is trained on.
        num_steps: How many steps.
        loss: The loss on the unseen batches, under the weights as they are.
        uses: For each step, which use of its batch it was.
        decreases: For each step, by how much the loss fell.
    """

    dataset: Watched
    num_steps: int
    loss: Callable[[], float]
    uses: list[int] = field(default_factory=list, init=False)
    decreases: list[float] = field(default_factory=list, init=False)

    def record(self) -> Generator[None, None, None]:
        """Records it; to be advanced before each of the steps, and once after the last."""
        before = self.loss()
        for _ in range(self.num_steps):
            yield
            after = self.loss()
            self.uses.append(self.dataset.last_use)
            self.decreases.append(before - after)
            before = after


class Measuring(keras.callbacks.Callback):
    """Measures what uses are worth, and lets the factor follow that where it is to.

    Args:
        workload: What is trained.
        dataset: What is trained on, with a factor of R at first where worth is followed.
        setting: Says how much is measured, and whether the factor follows.
        seed: That of the run.

    Attributes:
        worth: What was learnt so far.
        windows: For each stretch, the uses and the decreases of the loss.
        cost_steps: What measuring took so far, in steps.
    """

    def __init__(self, workload: Workload, dataset: Watched, setting: Setting, seed: int) -> None:
        super().__init__()
        self.worth = Worth()
        self.windows: list[tuple[list[int], list[float]]] = []
        self.cost_steps = 0.0
        self._dataset = dataset
        self._ratio = setting.factor
        self._limit = math.inf
        self._follows = setting.method == FOLLOW
        self._length, self._num_unseen = (
            (plan.FOLLOW_STRETCH, plan.FOLLOW_UNSEEN)
            if self._follows
            else (plan.STRETCH, plan.NUM_UNSEEN)
        )
        self._num_steps = 0
        self._window: Window | None = None
        self._recording: Iterator[None] = iter(())
        # What the run reads, once more: the same seed gives the same batches.
        read = workload.passes(setting.batch_size, seed, augmented=True)
        self._stream = itertools.chain.from_iterable(read() for _ in itertools.count())
        self._num_taken = 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this before each step."""
        if self._window is not None:
            self._advance(self._window)
        if self._window is None and self._is_due():
            self._window = Window(self._dataset, self._length, self._loss_of(self._unseen()))
            self._recording = self._window.record()
            self._advance(self._window)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this after each step."""
        self._dataset.trained()
        self._num_steps += 1

    def _is_due(self) -> bool:
        if not self._follows:
            return self._num_steps % (2 * self._length) == self._length
        cost_steps = (self._length + 1) * self._num_unseen * plan.STEPS_PER_LOSS
        return self.cost_steps + cost_steps <= plan.FOLLOW_BUDGET * self._num_steps

    def _advance(self, window: Window) -> None:
        self.cost_steps += self._num_unseen * plan.STEPS_PER_LOSS
        if next(self._recording, self) is not self:
            return
        self._window = None
        self.worth.add(window.uses, window.decreases)
        self.windows.append((window.uses, window.decreases))
        if self._follows:
            self._follow()

    def _follow(self) -> None:
        factor = self._dataset.echo_factor
        self._limit = next_limit(self.worth.estimates(), factor, self._limit)
        if (followed := min(self._ratio, self._limit)) != factor:
            self._dataset.echo_factor = followed
            self.worth.clear()  # another factor has other uses

    def _unseen(self) -> Batch:
        """Batches that no step will have seen at the end of the stretch."""
        skipped = max(0, batches_read(self._dataset) + self._length - self._num_taken)
        taken = list(itertools.islice(self._stream, skipped, skipped + self._num_unseen))
        self._num_taken += skipped + self._num_unseen
        x, y = (np.concatenate(arrays) for arrays in zip(*taken, strict=True))
        return x, y

    def _loss_of(self, batch: Batch) -> Callable[[], float]:
        def loss() -> float:
            model = self.model  # which has Keras bring the variables up to date
            return float(loss_of(model)([variable.value for variable in model.variables], batch))

        return loss
