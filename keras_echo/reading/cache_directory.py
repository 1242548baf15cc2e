"""Batches kept in the files of a directory, which may be there before and stay after."""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import time
import warnings
import weakref
from typing import TYPE_CHECKING, Any

from keras_echo._messages import expected
from keras_echo._temporary import remove
from keras_echo.memory.pool import Pool
from keras_echo.reading.batch_file import (
    MAGIC,
    TEMPORARY,
    DamagedError,
    NoRawBytesError,
    Packed,
    read,
    replace,
)
from keras_echo.reading.budget import Budget

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

    from keras_echo.memory.batch import Batch

_MANIFEST = "manifest.json"
_MOST_MANIFEST_BYTES = 2**10
_BATCH = re.compile(r"(0|[1-9][0-9]*)\.batch")
_ABANDONED_SECONDS = 3600.0  # after which nobody writes to an unfinished file any more


class InFiles:
    """Keeps batches in files. Thread-safe, and safe from other processes with the same key.

    Args:
        directory: Where.
        most_bytes: What the files may take. With a key, those that are there count; another
            process that writes at the same time counts its own.
        length: Batches in a pass of the source.
        key: Names the part of the directory that stays. None: a part of its own, which is removed
            with this object, and when the interpreter ends.

    Raises:
        ValueError: If under that key lie batches of another length or format.
        OSError: If the directory of a key can't be made or read.
    """

    def __init__(self, directory: Path, most_bytes: int, length: int, key: str | None) -> None:
        self._arguments = (directory, most_bytes, length, key)
        self._directory = directory / (key or f"keras_echo-{secrets.token_hex(8)}")
        self._length = length
        self._is_made = key is not None
        self._remove: weakref.finalize[..., InFiles] | None = None
        held: dict[Hashable, int] = {}
        if key is None:  # made when it is needed: what is closed leaves nothing
            self._remove = weakref.finalize(self, remove, self._directory, os.getpid())
        else:
            self._directory.mkdir(parents=True, exist_ok=True)
            _check_manifest(self._directory, length, key)
            held = _found(self._directory)
        self._budget = Budget(most_bytes, held)
        self._whole = {holder for holder in held if isinstance(holder, int)}
        self._empty = Pool().empty
        self._may_write = True
        self._is_closed = False
        self._warned_of: set[str] = set()

    @property
    def num_bytes(self) -> int:
        """The sizes of the files."""
        return self._budget.num_bytes

    def get(self, index: int) -> Batch | None:
        """The batch of an index in memory of its own; None if it isn't there, undamaged."""
        if index not in self._whole:
            return None
        try:
            return read(self._path(index), self._label(index), self._empty)
        except (OSError, DamagedError) as error:
            self._forget(index, error)
            self._warn("be read as it was written", error, "Training reads it from the source")
            return None

    def keep(self, index: int, batch: Batch) -> bool:
        """Writes a batch, if it has raw bytes and there is room for them; says whether."""
        if not self._may_write:
            return False
        try:
            packed = Packed(batch, self._label(index))
        except NoRawBytesError:
            return False
        if not self._budget.reserve(index, packed.num_bytes):
            return False
        try:
            if not self._is_made:
                self._directory.mkdir(parents=True, exist_ok=True)
                self._is_made = True
            packed.write(self._path(index))
        except BaseException as error:
            self._budget.give_back(index)
            if not isinstance(error, OSError):
                raise
            self._may_write = False
            self._warn("be written", error, "Training goes on, and no more files are written")
            return False
        self._whole.add(index)
        if not self._is_open:  # closed meanwhile, and maybe emptied before this file was there
            remove(self._directory, os.getpid())
        return True

    def emptied(self) -> InFiles:
        """What to go on with after `close()`: with a key this, as it stays."""
        if self._remove is None:
            return self
        self._is_closed = True
        remove(self._directory, os.getpid())
        self._remove.detach()  # only now: if Ctrl-C comes before, it still has to be done
        return InFiles(*self._arguments)

    @property
    def _is_open(self) -> bool:
        return self._remove is None or (self._remove.alive and not self._is_closed)

    def _path(self, index: int) -> Path:
        return self._directory / f"{index}.batch"

    def _label(self, index: int) -> Any:
        return {"index": index, "length": self._length}

    def _forget(self, index: int, error: Exception) -> None:
        """Asks for a file no more, and makes room for another one if it is damaged or gone."""
        self._whole.discard(index)
        if not isinstance(error, (DamagedError, FileNotFoundError)):
            return  # a disk that can't be reached says nothing of what lies there
        try:
            self._path(index).unlink(missing_ok=True)
        except OSError:
            return  # it still takes its bytes
        self._budget.give_back(index)

    def _warn(self, must: str, error: Exception, remedy: str) -> None:
        if must not in self._warned_of and self._is_open:
            self._warned_of.add(must)
            subject = f"A cached batch in {str(self._directory)!r}"
            warnings.warn(expected(subject, must, error, remedy), RuntimeWarning, stacklevel=2)


def _check_manifest(directory: Path, length: int, key: str) -> None:
    """Writes what the files of a directory are of, or compares what is written there.

    A manifest that can't be read is written again: each file says by itself what it is of.
    """
    manifest = directory / _MANIFEST
    wanted = {"format": MAGIC[-1], "length": length}
    try:
        if not manifest.is_file():  # to open a pipe would be to wait for who writes to it
            raise FileNotFoundError(manifest)
        with manifest.open("rb") as file:
            found = json.loads(file.read(_MOST_MANIFEST_BYTES))
    except (FileNotFoundError, ValueError, RecursionError):
        replace(manifest, [json.dumps(wanted).encode()])
        return
    if found != wanted:
        raise ValueError(
            expected(
                f"The batches that are cached in {str(directory)!r}",
                f"be those of this source: {wanted}",
                found,
                f"Use another key than {key!r}, one for each state of the data, or remove the "
                "directory",
            )
        )


def _found(directory: Path) -> dict[Hashable, int]:
    """Sizes of the files that lie there: of batches by their index, of others by their name.

    What a process that was killed has left unfinished is removed, if it is old.
    """
    held: dict[Hashable, int] = {}
    for path in directory.iterdir():
        try:
            status = path.stat()
            if path.suffix == TEMPORARY and time.time() - status.st_mtime > _ABANDONED_SECONDS:
                path.unlink()
                continue
        except FileNotFoundError:
            continue  # of another process, which has finished it
        if path.name != _MANIFEST and stat.S_ISREG(status.st_mode):  # pipes are left alone
            batch = _BATCH.fullmatch(path.name)
            held[int(batch[1]) if batch else path.name] = status.st_size
    return held
