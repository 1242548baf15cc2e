"""Directories that are there as long as something in this process needs them."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def remove(directory: Path, process: int) -> None:
    """Removes a directory, if it can be, in the process that it belongs to.

    A fork of that process has the same finalizers, and ends earlier.

    Args:
        directory: The directory.
        process: The id of the process.
    """
    if os.getpid() == process:
        shutil.rmtree(directory, ignore_errors=True)
