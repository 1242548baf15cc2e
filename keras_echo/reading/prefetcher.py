"""Bounded parallel work ahead of a consumer: the only owner of threads and processes.

A `Prefetcher` is an iterator over the results of its tasks, in their order:

- Up to `num_workers` readers, a number that may change, take the next task, do it, and put the
  result into a window of at most `window_size` results.
- Readers are started when the consumer asks for a result and some are missing. A reader that had
  nothing to do for `idle_seconds` ends. So a stream that nobody consumes any longer soon holds no
  thread and no process, even if nobody said that it was over (an exception in the model).
- `stop` ends every reader after the task it is at. Results stay, and asking for the next one
  starts readers again: stopping loses nothing.
- What a task raises is raised when its result is asked for, and in its place.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import warnings
import weakref
from collections import deque
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from keras_echo.reading.stream import Barrier
from keras_echo.reading.worker_process import in_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

T = TypeVar("T")
R = TypeVar("R")

THREAD_NAME = "keras_echo-reader"


_EXIT_SECONDS = 2.0  # for which the end of the interpreter waits for reads

_prefetchers: weakref.WeakSet[Prefetcher[Any]] = weakref.WeakSet()


@atexit.register
def _end_with_the_interpreter() -> None:
    """Ends all readers: one that is inside of PyTorch when the interpreter goes aborts the process.

    A read that doesn't return keeps no script alive for longer than `_EXIT_SECONDS`.
    """
    deadline = time.monotonic() + _EXIT_SECONDS
    for prefetcher in list(_prefetchers):
        prefetcher.stop(wait=False)
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME and thread.is_alive():
            thread.join(max(0.0, deadline - time.monotonic()))


def _after_fork() -> None:
    """Lets a child process end, though a reader that it doesn't have held a lock at the fork."""
    for prefetcher in list(_prefetchers):
        prefetcher._lose_readers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class StoppedError(RuntimeError):
    """The prefetcher was stopped by another thread while this one waited for a result."""


class Doing(Protocol):
    """A task that is being done."""

    compute_seconds: float  # for which a processor worked on it in another process


class Watch(Protocol):
    """Who is told what readers and consumer do. All but `reading` is called under a lock."""

    def reading(self) -> AbstractContextManager[Doing]:
        """Makes the context in which a task is done."""

    def held(self, share: float) -> None:
        """From now on, this share of the readers can do nothing before the consumer takes more."""

    def missed(self) -> None:
        """The consumer asked for a result, and it wasn't ready."""

    def took(self) -> None:
        """The consumer has a result."""


class Unwatched:
    """Tells nobody; see `Watch`."""

    compute_seconds = 0.0

    def reading(self) -> AbstractContextManager[Doing]:
        """See `Watch`."""
        return nullcontext(self)

    def held(self, share: float) -> None:
        """See `Watch`."""

    def missed(self) -> None:
        """See `Watch`."""

    def took(self) -> None:
        """See `Watch`."""


class _Slot:
    """The place of one task's result in the window."""

    def __init__(self, task: Any, version: int, error: BaseException | None = None) -> None:
        self.task = task
        self.version = version
        self.result: Any = None
        self.error = error
        self.is_done = error is not None


class Prefetcher(Generic[R]):
    """Does tasks ahead of its consumer, in order.

    Args:
        function: Does one task; called on the readers' threads or, with `use_processes`, in
            processes of their own, for which it is pickled.
        tasks: The tasks, and barriers between them; pulled by one reader at a time.
        num_workers: How many readers there are to be; a function is asked again after each task.
        window_size: The most results that wait for the consumer, or are being made; one for each
            reader at least.
        use_processes: Whether readers work in processes.
        idle_seconds: How long a reader waits for work before it ends.
        stall_seconds: After how long a wait the consumer is warned, again and again.
        watch: Who is told what readers and consumer do.
        through: Stands between a reader and its task, on the reader's thread: called with the task
            and with what does it, in a process or not.
    """

    def __init__(
        self,
        function: Callable[[T], R],
        tasks: Iterator[T | Barrier],
        *,
        num_workers: int | Callable[[], int],
        window_size: int,
        use_processes: bool = False,
        idle_seconds: float = 2.0,
        stall_seconds: float = 60.0,
        watch: Watch | None = None,
        through: Callable[[T, Callable[[T], R]], R] | None = None,
    ) -> None:
        self._function = function
        self._tasks = tasks
        self._ask_num_workers = num_workers if callable(num_workers) else lambda: num_workers
        self._least_window_size = window_size
        self._ask()
        self._use_processes = use_processes
        self._idle_seconds = idle_seconds
        self._stall_seconds = stall_seconds
        self._watch = watch or Unwatched()
        self._through = through or (lambda task, work: work(task))
        # Ctrl-C can come between any two steps of the thread that consumes. To take a lock by
        # `with` is one step; to wait on a condition takes several, and may leave its lock in
        # any state. So the readers, which are never interrupted, wait on the condition, and a
        # consumer waits for a bell of its own: a lock that is released for it.
        self._lock = threading.RLock()  # taken again where a collected prefetcher is stopped
        self._changed = threading.Condition(self._lock)
        self._bells: list[threading.Lock] = []
        _prefetchers.add(self)
        # All below is guarded by the lock.
        self._window: deque[_Slot] = deque()
        self._readers: set[threading.Thread] = set()  # one that isn't in it ends
        self._leaving: set[threading.Thread] = set()
        self._is_pulling = False
        self._barrier: Barrier | None = None  # pulled, but not yet passed
        self._num_taken = 0
        self._num_wanted = 0  # the consumer waits for a result where more are wanted than taken
        self._num_undone = 0  # of the window
        self._share_held: float | None = None  # as the watch knows it
        self._version = 0  # counts barriers: a process of an older version has outdated copies
        self._era = 0  # counts stops

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        era, waited_seconds = self._era, 0.0
        while True:
            with self._lock:
                if self._era != era:
                    raise StoppedError("The dataset was closed while a batch was waited for.")
                if self._window and self._window[0].is_done:
                    slot = self._window.popleft()
                    self._num_taken += 1
                    self._watch.took()
                    self._start_readers()
                    self._notify()
                    break
                self._miss()
                # Again after every slice, and where a reader that left has made room.
                self._start_readers()
                bell = self._hung_up_bell()
                self._changed.notify_all()
            if not self._heard(bell, self._idle_seconds):
                before, waited_seconds = waited_seconds, waited_seconds + self._idle_seconds
                if waited_seconds // self._stall_seconds > before // self._stall_seconds:
                    warnings.warn(_stalled(waited_seconds), RuntimeWarning, stacklevel=2)
        if slot.error is not None:
            raise slot.error
        result: R = slot.result
        return result

    def await_next(self, timeout_seconds: float) -> bool:
        """Asks for the next result, and waits until it lies ready.

        Returns:
            Whether it does; False if the time was up.

        Raises:
            StoppedError: If `stop` was called meanwhile.
        """
        era, deadline = self._era, time.monotonic() + timeout_seconds
        while True:
            with self._lock:
                if self._era != era:
                    raise StoppedError("The dataset was closed while a batch was waited for.")
                if self._window and self._window[0].is_done:
                    return True
                self._miss()
                self._start_readers()
                self._changed.notify_all()
                seconds = min(deadline - time.monotonic(), self._idle_seconds)
                if seconds <= 0:
                    return False
                bell = self._hung_up_bell()
            self._heard(bell, seconds)

    def has_ahead(self, num_results: int) -> bool:
        """Whether so many results lie ready, or as many as window and barrier let there be."""
        with self._lock:
            return self._barrier is not None or self._num_done >= min(
                num_results, self._window_size
            )

    def ready(self) -> list[R]:
        """The results that lie ready, in their order; they stay there."""
        with self._lock:
            return [slot.result for slot in self._window if slot.is_done and slot.error is None]

    def is_crowded(self) -> bool:
        """Whether so many results lie ready that, with those being made, the window is full.

        Half of a window that is hardly larger than one round of the readers: they go on in turn.
        """
        enough = max(1, self._window_size - self._num_workers, self._window_size // 2)
        with self._lock:
            return self._num_done >= enough

    def fill(self, num_results: int, timeout_seconds: float) -> bool:
        """Waits until results lie ready: `num_results`, or as many as the window holds.

        Returns:
            Whether they do; False if the time was up, `stop` was called meanwhile, or a barrier
            stands before them.
        """
        wanted = min(num_results, self._window_size)
        era, deadline = self._era, time.monotonic() + timeout_seconds
        while True:
            with self._lock:
                if self._num_done >= wanted:
                    return True
                if self._era != era or self._is_at_barrier:
                    return False
                self._start_readers()
                bell = self._hung_up_bell()
            if not self._heard(bell, max(0.0, deadline - time.monotonic())):
                return False

    def stop(self, *, wait: bool = True) -> None:
        """Ends all readers after the tasks that they are at.

        Args:
            wait: Whether to return only when they have ended.
        """
        with self._lock:
            self._era += 1
            self._leaving, self._readers = self._leaving | self._readers, set()
            leaving = set(self._leaving)
            self._notify()
        while wait:
            # Not by `join` alone: after a join that Ctrl-C interrupts, CPython takes a thread for
            # ended that still runs (`Thread._wait_for_tstate_lock` of 3.11).
            with self._lock:
                if not leaving & self._leaving:
                    break
                bell = self._hung_up_bell()
            self._heard(bell, self._idle_seconds)
        if wait:
            for reader in leaving:
                reader.join()

    def _lose_readers(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._readers, self._leaving = set(), set()

    def _hung_up_bell(self) -> threading.Lock:
        bell = threading.Lock()
        bell.acquire()
        self._bells.append(bell)
        return bell

    def _heard(self, bell: threading.Lock, timeout_seconds: float) -> bool:
        """Waits for the bell; one that nobody waits for any more is taken down."""
        if bell.acquire(timeout=timeout_seconds):
            return True
        with self._lock:
            if bell in self._bells:
                self._bells.remove(bell)
        return False

    def _miss(self) -> None:
        if not self._is_asked:
            self._watch.missed()
        self._num_wanted = self._num_taken + 1

    def _notify(self) -> None:
        self._tell_held()
        self._changed.notify_all()
        bells, self._bells = self._bells, []
        for bell in bells:
            bell.release()

    def _start_readers(self) -> None:
        room = self._window_size - len(self._window)
        # Those that leave count: a source that is read in sequence has one reader at a time.
        num_missing = self._num_workers - len(self._readers) - len(self._leaving)
        for _ in range(min(room, num_missing)):
            reader = threading.Thread(target=self._run_reader, name=THREAD_NAME, daemon=True)
            try:
                self._readers.add(reader)
                reader.start()
            except BaseException as error:
                self._readers.discard(reader)  # if it runs all the same, it ends
                if self._readers and isinstance(error, RuntimeError):
                    return  # no more threads are to be had: those that run go on
                raise

    def _run_reader(self) -> None:
        try:
            with self._worker() as work:
                while (slot := self._claim()) is not None:
                    self._do(slot, work)
        finally:
            with self._lock:
                self._leave()
                self._leaving.discard(threading.current_thread())
                self._notify()

    def _leave(self) -> None:
        reader = threading.current_thread()
        if reader in self._readers:
            self._readers.discard(reader)
            self._leaving.add(reader)

    def _do(self, slot: _Slot, work: Callable[[Any, int], tuple[R, float]]) -> None:
        if slot.is_done:
            return
        try:
            with self._watch.reading() as doing:

                def done(task: Any) -> R:
                    result, doing.compute_seconds = work(task, slot.version)
                    return result

                slot.result = self._through(slot.task, done)
        except BaseException as error:
            slot.error = error
        with self._lock:
            slot.is_done = True
            self._num_undone -= 1
            self._ask()
            self._notify()

    def _ask(self) -> None:
        self._num_workers = self._ask_num_workers()
        self._window_size = max(self._least_window_size, self._num_workers)

    def _worker(self) -> AbstractContextManager[Callable[[Any, int], tuple[R, float]]]:
        """What does a reader's tasks, on its thread or in its process.

        It returns the result, and for how many seconds a processor worked on it in a process.
        """
        if self._use_processes:
            return in_processes(self._function)
        return nullcontext(lambda task, _: (self._function(task), 0.0))

    def _claim(self) -> _Slot | None:
        """Takes the next task and opens its place in the window; None ends the reader."""
        while True:
            with self._lock:
                self._changed.wait_for(
                    lambda: self._has_work or not self._is_reader, timeout=self._idle_seconds
                )
                if not (self._has_work and self._is_reader) or self._has_too_many:
                    # At once: the consumer must not count on a reader that leaves.
                    self._leave()
                    return None
                self._is_pulling = True
            slot: _Slot | None = None
            try:
                task = self._pull()
                if not isinstance(task, Barrier):
                    slot = _Slot(task, self._version)
            except StoppedError:
                pass  # of the tasks' own prefetcher: this one is being stopped too
            except BaseException as error:
                slot = _Slot(None, self._version, error)
            with self._lock:
                self._is_pulling = False
                if slot is not None:
                    self._window.append(slot)
                    self._num_undone += not slot.is_done
                self._notify()
            if slot is not None:
                return slot

    def _tell_held(self) -> None:
        # A window that is full while its first task isn't done is nobody's fault but reading's.
        lies_ready = self._window[0].is_done if self._window else not self._is_asked
        is_held = (self._is_full or self._barrier is not None) and lies_ready
        share = 0.0
        if is_held or not self._readers:
            share = max(0.0, 1.0 - self._num_undone / self._num_workers)
        if share != self._share_held:
            self._share_held = share
            self._watch.held(share)

    @property
    def _is_reader(self) -> bool:
        return threading.current_thread() in self._readers

    @property
    def _has_too_many(self) -> bool:
        return len(self._readers) > self._num_workers

    @property
    def _has_work(self) -> bool:
        return not (self._is_full or self._is_pulling or self._is_held)

    @property
    def _num_done(self) -> int:
        return len(self._window) - self._num_undone

    @property
    def _is_full(self) -> bool:
        return len(self._window) >= self._window_size

    @property
    def _is_at_barrier(self) -> bool:
        return self._barrier is not None and self._num_done == len(self._window)

    @property
    def _is_held(self) -> bool:
        """Whether a barrier stands before the next task and can't be passed yet."""
        return self._barrier is not None and not (self._is_asked and not self._window)

    @property
    def _is_asked(self) -> bool:
        """Whether the consumer waits for a result."""
        return self._num_wanted > self._num_taken

    def _pull(self) -> Any:
        """Passes the barrier, if one is there; returns the next task or barrier."""
        if self._barrier is not None:
            self._barrier.action()
            self._barrier = None
            self._version += 1
        task = next(self._tasks)
        if isinstance(task, Barrier):
            self._barrier = task
        return task


def _stalled(seconds: float) -> str:
    return (
        f"Training has waited {seconds:.0f} seconds for the source to deliver a batch. "
        "It goes on by itself when the batch arrives."
    )
