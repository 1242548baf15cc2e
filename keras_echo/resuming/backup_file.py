"""The file of a backup: JSON and arrays, there whole or not at all, and checked when read.

It has the format of `keras_echo.reading.batch_file`: data, and nothing that could be executed.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_echo._messages import expected
from keras_echo.reading.batch_file import TEMPORARY, DamagedError, Packed, read

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME = "keras_echo-backup"
_LABEL = ["a backup of keras_echo", 1]


class Backup(NamedTuple):
    """What a backup holds.

    Attributes:
        about: In types that JSON knows.
        arrays: Arrays, in the order in which they were written.
    """

    about: dict[str, Any]
    arrays: Sequence[np.ndarray]


class BackupFile:
    """The last backup in a directory.

    A new one takes its place in one step, once it lies on the disk: whether the process is killed
    or the power fails, one of the two can be read.

    Args:
        directory: Where it lies; made if it isn't there. One training at a time may write to it.

    Raises:
        OSError: If the directory can't be made.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.path = Path(directory) / _NAME
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for unfinished in self.path.parent.glob(f"{_NAME}*{TEMPORARY}"):  # of a killed process
            with suppress(OSError):
                unfinished.unlink()

    def write(self, backup: Backup) -> None:
        """Replaces the backup.

        Raises:
            OSError: If that isn't possible; the last one is still there then.
        """
        about = np.frombuffer(json.dumps(backup.about).encode(), np.uint8)
        self.path.parent.mkdir(parents=True, exist_ok=True)  # somebody may have cleared up
        new = self.path.with_name(f"{_NAME}-new{TEMPORARY}")
        try:
            Packed([about, *backup.arrays], _LABEL).write(new)
            _flush(new)
            new.replace(self.path)
        except BaseException:
            with suppress(OSError):
                new.unlink()
            raise
        _flush(self.path.parent)

    def read(self) -> Backup | None:
        """The last backup; None if there is none.

        Raises:
            ValueError: If what is there isn't what was written.
            OSError: If it can't be read.
        """
        try:
            about, *arrays = read(self.path, _LABEL)
        except FileNotFoundError:
            return None
        except DamagedError as error:
            raise ValueError(
                expected(
                    f"The backup {self.path}",
                    "be what was written",
                    str(error),
                    "Restore the file from elsewhere, or delete it to train from the beginning",
                )
            ) from error
        return Backup(json.loads(about.tobytes()), arrays)

    def delete(self) -> None:
        """Deletes the backup, and its directory if nothing else is in it."""
        with suppress(OSError):
            self.path.unlink()
        with suppress(OSError):
            self.path.parent.rmdir()


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a directory, lie on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
