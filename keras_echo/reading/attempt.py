"""A task on its way: its place in the window, and the tries that it takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Worker(Protocol):
    """What does the tasks of one reader."""

    def prepare(self, version: int) -> None:
        """Gets ready for tasks of a version of the function, which may take seconds."""

    def __call__(self, task: Any, /) -> tuple[Any, float]:
        """Does a task; returns its result, and for how many seconds another process computed."""

    def kill(self) -> None:
        """Ends it in the midst of a task, if that can be; called by another thread."""


class OnThread:
    """Does tasks on the thread that calls it."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def prepare(self, version: int) -> None:
        """See `Worker`."""

    def __call__(self, task: Any) -> tuple[Any, float]:
        """See `Worker`."""
        return self._function(task), 0.0

    def kill(self) -> None:
        """See `Worker`: a thread ends by itself, or not at all."""

    def close(self) -> None:
        """There is nothing to end."""


class TimeLimit(Protocol):
    """How long a task may take.

    Attributes:
        seconds: For each step.
    """

    seconds: float

    def step(self, task: Any) -> object:
        """The step that a task is at; the time of each counts by itself."""

    def error(self, task: Any, seconds: float) -> Exception:
        """What is raised for a task that was at one step for so many seconds."""


class Slot:
    """The place of one task's result in the window.

    Attributes:
        num_failures: Tries that failed.
        due: When to try again, by the clock of the prefetcher.
    """

    def __init__(self, task: Any, version: int, error: BaseException | None = None) -> None:
        self.task = task
        self.version = version
        self.result: Any = None
        self.error = error
        self.is_done = error is not None
        self.num_failures = 0
        self.due = -math.inf


class Attempt:
    """One try at a task.

    Attributes:
        slot: Where its result goes.
        worker: What does it.
        is_dropped: Whether it took too long: what comes of it is nobody's any more.
    """

    def __init__(self, slot: Slot, worker: Worker, clock: Callable[[], float]) -> None:
        self.slot = slot
        self.worker = worker
        self.is_dropped = False
        self._clock = clock
        self._began: float | None = None
        self._step: object = None

    def begin(self, limit: TimeLimit | None) -> None:
        """From now on, the time counts."""
        self._step = None if limit is None else limit.step(self.slot.task)
        self._began = self._clock()

    def seconds(self, limit: TimeLimit) -> float:
        """For how long it has been at the step that it is at; 0 before `begin`."""
        step, began = limit.step(self.slot.task), self._began
        if began is None:
            return 0.0
        if step != self._step:
            self._step, self._began = step, self._clock()
            return 0.0
        return self._clock() - began
