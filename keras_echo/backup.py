"""`BackupAndRestore`: a training that is killed goes on where it was."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, Literal

import keras

from keras_echo._checks import check_count
from keras_echo._messages import expected
from keras_echo.callback import DataEchoCallback
from keras_echo.dataset import EchoingPyDataset, progress_of
from keras_echo.resuming.backup_file import Backup, BackupFile
from keras_echo.resuming.keras_epoch import ShortEpoch, begin_at_epoch
from keras_echo.resuming.model_state import Values, build, metrics, trained

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import numpy as np

    Logs = dict[str, Any] | None


class BackupAndRestore(keras.callbacks.Callback):
    """Has a `fit()` that was interrupted go on when the same script is started again.

    Like `keras.callbacks.BackupAndRestore`, and in the midst of an epoch, too: the interrupted
    epoch is trained to its end, on exactly the batches that were missing. The weights at the end
    are those of a training without the interruption, bit for bit where the backend is
    deterministic.

    Model, optimizer, metrics, seeds of random layers, the dataset and, if it is given, what
    `DataEchoCallback` has learnt are written together, into one file, which takes the place of the
    last one when it is whole. It holds data and no code. Where it can't be written, training goes
    on, and one warning says so.

    Put it last in the list of callbacks: what others change at the end of an epoch is then part of
    the backup. What they remember themselves isn't.

    Args:
        dataset_or_callback: The `EchoingPyDataset` that is trained on, or the `DataEchoCallback` of
            this training, which is then restored as well.
        backup_dir: Where the file lies; made if it isn't there. For one training at a time.
        save_freq: `"epoch"`: at the end of each epoch. A number: after so many optimizer steps,
            too, if `fit()` gets the dataset itself. Its epochs must then be those of the dataset,
            and a multiple of the model's `steps_per_execution`.
        delete_checkpoint: Whether the file goes when training has come to its end. If it stays, the
            next `fit()` begins at that end.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument has a wrong value; in `fit()`: if the backup is of another model,
            or damaged, or if it can't be resumed in mid-epoch.
        OSError: If `backup_dir` can't be made; in `fit()`: if the backup can't be read.

    Examples:
        >>> echo = keras_echo.DataEchoCallback(dataset, "logs")
        >>> backup = keras_echo.BackupAndRestore(echo, "backup", save_freq=500)
        >>> model.fit(dataset, epochs=10, callbacks=[echo, backup])
    """

    def __init__(
        self,
        dataset_or_callback: EchoingPyDataset | DataEchoCallback,
        backup_dir: str | os.PathLike[str],
        *,
        save_freq: int | Literal["epoch"] = "epoch",
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        echo = dataset_or_callback
        self._controller = echo if isinstance(echo, DataEchoCallback) else None
        dataset = echo.dataset if isinstance(echo, DataEchoCallback) else echo
        if not isinstance(dataset, EchoingPyDataset):
            raise TypeError(
                expected(
                    "dataset_or_callback",
                    "be an EchoingPyDataset, or the DataEchoCallback of one",
                    echo,
                    "Pass the dataset that fit() trains on",
                )
            )
        if save_freq != "epoch":
            save_freq = check_count("save_freq", save_freq, 1)
        self._num_batches = len(dataset)
        self._progress = progress_of(dataset)
        self._save_freq = save_freq
        self._deletes = delete_checkpoint
        self._file = BackupFile(backup_dir)
        self._short_epoch = ShortEpoch()
        self._begin()

    def _begin(self) -> None:
        self._metrics: Sequence[np.ndarray] | None = None  # of an epoch to go on with
        self._first_batch = 0  # of the epoch at hand, where Keras counts from 0
        self._epoch = 0
        self._trained = 0  # steps before this epoch, in this fit()
        self._end_of_call = 0  # the steps of the epoch after the call that has begun
        self._steps_per_call = 1
        self._next_save: float = math.inf
        self._has_failed = False

    def on_train_begin(self, logs: Logs = None) -> None:
        """Keras calls this."""
        self._begin()
        self._short_epoch.has_ended()  # where the last fit() broke off
        self._steps_per_call = int(self.model.steps_per_execution)
        if self._save_freq != "epoch":
            self._check_steps()
        backup = self._file.read()
        if backup is not None:
            self._restore(backup)
        self._progress.begin()
        if isinstance(self._save_freq, int):
            self._next_save = self._save_freq

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Keras calls this."""
        begin_at_epoch(self.model, None)  # Keras has read it, and would keep it for the next fit()
        self._epoch = epoch
        if self._metrics is not None:
            metrics(self.model).restore(self._metrics)
            self._metrics = None

    # Not `on_train_batch_end`: see `DataEchoCallback`.
    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Keras calls this."""
        num_steps = self._trained + batch
        self._progress.trained(num_steps)
        call = range(batch, batch + self._steps_per_call)
        if self._first_batch:
            self._short_epoch.begins(call, self._num_batches - self._first_batch)
        self._end_of_call = call.stop
        if num_steps >= self._next_save and batch > 0:
            self._save(self._epoch, self._first_batch + batch, num_steps)

    def on_test_begin(self, logs: Logs = None) -> None:
        """Keras calls this."""
        self._short_epoch.has_ended()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Keras calls this."""
        self._short_epoch.has_ended()
        self._trained += int(min(self._end_of_call, self._num_steps - self._first_batch))
        self._first_batch = self._end_of_call = 0
        self._progress.shorten_epoch(None)
        self._save(epoch + 1, 0, self._trained)

    def on_train_end(self, logs: Logs = None) -> None:
        """Keras calls this."""
        begin_at_epoch(self.model, None)
        self._progress.end()
        if self._deletes:
            self._file.delete()

    @property
    def _num_steps(self) -> float:
        return (self.params or {}).get("steps") or math.inf

    def _check_steps(self) -> None:
        if self._num_steps != self._num_batches:
            raise ValueError(
                expected(
                    "save_freq",
                    'be "epoch" where the epochs of fit() aren\'t those of the dataset, of '
                    f"{self._num_batches} steps",
                    f"save_freq={self._save_freq} and epochs of {self._num_steps} steps",
                    "Pass steps_per_epoch to EchoingPyDataset, and the dataset itself to fit()",
                )
            )
        if self._num_batches % self._steps_per_call:
            raise ValueError(
                expected(
                    "save_freq",
                    'be "epoch" where steps_per_execution doesn\'t divide the epoch',
                    f"epochs of {self._num_batches} steps, of which "
                    f"{self._steps_per_call} are executed together",
                    "Pass steps_per_epoch to EchoingPyDataset",
                )
            )

    def _save(self, epoch: int, batch: int, num_steps: int) -> None:
        """Writes where training stands: so many batches into an epoch."""
        if isinstance(self._save_freq, int):
            self._next_save = num_steps + self._save_freq
        if batch and self._progress.is_iterated:
            raise ValueError(
                expected(
                    "save_freq",
                    'be "epoch" where fit() gets the dataset by as_tf_dataset() or as_grain()',
                    self._save_freq,
                    "Pass the dataset itself to fit(), or leave save_freq out",
                )
            )
        try:
            dataset = self._progress.state_dict(num_steps)
        except LookupError:
            raise ValueError(
                expected(
                    "BackupAndRestore's dataset",
                    "be the one that fit() trains on",
                    "an EchoingPyDataset that hasn't served what was trained on",
                    "Pass the same object to both: "
                    'model.fit(dataset, callbacks=[BackupAndRestore(dataset, "backup")])',
                )
            ) from None
        model = self.model
        values = trained(model)
        results = metrics(model) if batch else Values()
        about = {
            "epoch": epoch,
            "batch": batch,
            "variables": values.described(),
            "metrics": results.described(),
            "dataset": dataset,
            "controller": self._controller and self._controller.state_dict(),
        }
        try:
            self._file.write(Backup(about, [*values.read(), *results.read()]))
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                message = expected(
                    f"The backup {self._file.path}",
                    "be written",
                    error,
                    "Training goes on, and later backups are tried; give a directory with room",
                )
                warnings.warn(message, RuntimeWarning, stacklevel=2)

    def _restore(self, backup: Backup) -> None:
        about, model = backup.about, self.model
        batch, num_variables = about["batch"], len(about["variables"])
        if batch:
            self._check_steps()
            if batch >= self._num_batches:
                raise ValueError(_too_short(batch, self._num_batches))
        self._progress.load(about["dataset"])
        if not model.built or (batch and len(about["metrics"]) > len(metrics(model).described())):
            # TensorFlow has it done by the first step.
            build(model, self._progress.first_batch())
        values = trained(model)
        values.check(about["variables"])
        values.restore(backup.arrays[:num_variables])
        if batch:
            metrics(model).check(about["metrics"])
            self._metrics, self._first_batch = backup.arrays[num_variables:], batch
            self._progress.shorten_epoch(self._num_batches - batch)
        if self._controller is not None and about["controller"] is not None:
            self._controller.load_state_dict(about["controller"])
        begin_at_epoch(model, about["epoch"])


def _too_short(batch: int, num_batches: int) -> str:
    return expected(
        "An epoch",
        f"have more than {batch} steps, which the backup has trained of it already",
        f"a dataset with epochs of {num_batches}",
        "Build the dataset as before, or delete the backup",
    )
