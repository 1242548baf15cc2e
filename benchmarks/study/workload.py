"""What a workload is to the study: arrays, an augmentation, a model, a score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Workload:
    """A workload's data and model.

    Attributes:
        train: Examples x and their targets y, in the same order.
        validation: x of the validation set, all of which the model predicts at once.
        augment: Augments a batch with random numbers of its own, or None.
        model: Builds the model, which is not compiled; no dropout and no batch statistics.
        loss: The loss to compile it with.
        score: From the model's predictions of `validation` to their quality.
    """

    train: Batch
    validation: np.ndarray
    augment: Callable[[Batch, np.random.Generator], Batch] | None
    model: Callable[[], Any]
    loss: Any
    score: Callable[[np.ndarray], float]

    def passes(
        self, batch_size: int, seed: int, *, augmented: bool
    ) -> Callable[[], Iterator[Batch]]:
        """A source: each call begins a pass over the training set in an order of its own.

        With the same seed, the order is the same whether or not the batches are augmented.

        Args:
            batch_size: Examples in a batch; what is left over at the end of a pass is left out.
            seed: Decides the order and the augmentation.
            augmented: Whether the source augments what it reads.
        """
        orders, draws = np.random.default_rng(seed).spawn(2)
        x, y = self.train

        def read() -> Iterator[Batch]:
            order = orders.permutation(len(x))
            for start in range(0, len(x) - batch_size + 1, batch_size):
                rows = order[start : start + batch_size]
                batch = x[rows], y[rows]
                if augmented and self.augment is not None:
                    batch = self.augment(batch, draws)
                yield batch

        return read
