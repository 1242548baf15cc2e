"""What the machine has for this process."""

from __future__ import annotations

import math
import os
from pathlib import Path


def num_cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_bytes() -> float:
    """Memory that can be had without swapping; infinity where the system doesn't say (Linux does).

    A container may have less: the smaller figure counts.
    """
    return min(_available_bytes(), _container_bytes())


def _available_bytes() -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return math.inf
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return 1024.0 * int(value.split()[0])
    return math.inf


def _container_bytes() -> float:
    folder = Path("/sys/fs/cgroup")
    try:
        most = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = (folder / "memory.current").read_text(encoding="ascii").strip()
    except OSError:
        return math.inf
    return math.inf if most == "max" else max(0.0, float(most) - float(used))
