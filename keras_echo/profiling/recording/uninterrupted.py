"""What Ctrl-C must not cut in two: it comes right after."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside, Ctrl-C waits. A profiler that is half started or half stopped can't be used again."""
    usual = signal.getsignal(signal.SIGINT)
    # Other threads aren't interrupted anyhow, and a handler that isn't Python's can't be put back.
    if threading.current_thread() is not threading.main_thread() or usual is None:
        yield
        return
    came: list[int] = []

    def note(number: int, _: Any) -> None:
        came.append(number)

    try:
        signal.signal(signal.SIGINT, note)
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if came:
            signal.raise_signal(signal.SIGINT)
