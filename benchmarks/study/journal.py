"""The finished runs: one line of JSON for each, appended as soon as the run is over."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from study.plan import Run, Setting

if TYPE_CHECKING:
    from pathlib import Path

Record = dict[str, Any]


def run_of(record: Record) -> Run:
    """The run that a record is of."""
    setting = Setting(*(record[field] for field in Setting._fields))
    return Run(setting, record["learning_rate"], record["seed"])


class Journal:
    """A file of records. What a killed study had written half is dropped when it goes on.

    Args:
        path: The file; its folder is made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(path, len(whole))
        self.records: dict[Run, Record] = {}
        for line in whole.splitlines():
            record = json.loads(line)
            self.records[run_of(record)] = record

    def add(self, record: Record) -> None:
        """Writes a record to the disk before it returns."""
        with self._path.open("a") as file:
            file.write(json.dumps(record, separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records[run_of(record)] = record
