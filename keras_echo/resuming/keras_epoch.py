"""An epoch that was interrupted, as Keras sees it: where `fit()` begins, and that it is short."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def begin_at_epoch(model: keras.Model, epoch: int | None) -> None:
    """Has `fit()` begin at an epoch, from `on_train_begin` on; None for where it is told to.

    `keras.callbacks.BackupAndRestore` does the same, by the same private name (Keras 3.15,
    `keras/src/callbacks/backup_and_restore.py`). Keras doesn't forget it by itself.
    """
    model._initial_epoch = epoch


class ShortEpoch:
    """An epoch that has less steps than Keras expects, since the others were trained before.

    It ends as Keras ends it where the data do: by a `StopIteration` in its loop (Keras 3.15,
    `keras/src/trainers/epoch_iterator.py`, `catch_stop_iteration`). Keras then warns of missing
    data, which isn't the case here. On TensorFlow, the step that finds the data at an end would do
    all that doesn't depend on them, such as drawing seeds.
    """

    def __init__(self) -> None:
        self._without_warning: warnings.catch_warnings | None = None

    def begins(self, call: range, num_batches: int) -> None:
        """A call of the train function begins, for these batches of so many.

        Raises:
            StopIteration: If it is one too many; Keras catches it.
        """
        if self._without_warning is None and call.stop >= num_batches:
            self._without_warning = warnings.catch_warnings()
            self._without_warning.__enter__()
            warnings.filterwarnings("ignore", "Your input ran out of data")
        if call.start == num_batches:
            raise StopIteration

    def has_ended(self) -> None:
        """To be called where it has; as often as anybody likes."""
        if self._without_warning is not None:
            self._without_warning.__exit__(None, None, None)
            self._without_warning = None
