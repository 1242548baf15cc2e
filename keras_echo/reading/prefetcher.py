"""Bounded parallel work ahead of a consumer: the only owner of threads and processes.

A `Prefetcher` is an iterator over the results of its tasks, in their order:

- Up to `num_workers` readers, a number that may change, take the next task, do it, and put the
  result into a window of at most `window_size` results.
- Readers are started when the consumer asks for a result and some are missing. A reader that had
  nothing to do for `idle_seconds` ends. So a stream that nobody consumes any longer soon holds no
  thread and no process, even if nobody said that it was over (an exception in the model).
- `stop` ends every reader after the task it is at. Results stay, and asking for the next one
  starts readers again: stopping loses nothing.
- What a task raises is raised when its result is asked for, and in its place; or the task is tried
  again, which takes up a reader until then.
- Of a task that takes too long, the consumer takes notice: the task has failed. A thread can't be
  ended, so its reader is dropped: another one takes its place, and when the task ends at last, so
  does the thread, and touches nothing any more.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
import warnings
import weakref
from collections import deque
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from keras_echo.reading.attempt import Attempt, OnThread, Slot
from keras_echo.reading.stream import AbandonedError, Barrier
from keras_echo.reading.watch import Unwatched
from keras_echo.reading.worker_process import InProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keras_echo.reading.attempt import TimeLimit
    from keras_echo.reading.watch import Doing, Watch

T = TypeVar("T")
R = TypeVar("R")

THREAD_NAME = "keras_echo-reader"

_SLICE_SECONDS = 1.0  # in which it is noticed that a wait is to end
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
    """The wait for a result was ended by another thread that stopped the prefetcher, or Ctrl-C."""


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
        again: Told of an error of a task, and of how many tries failed; returns after how many
            seconds to try again, or None if the error is to be raised.
        limit: How long a task may take.
        is_interrupted: Whether whoever waits for a result is to stop waiting; asked every
            `_SLICE_SECONDS`.
        clock: Seconds; of waits for tasks, and for the next try.

    Attributes:
        last_task: The one whose result, or error, the consumer got last; None before, and where
            the tasks themselves failed.
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
        again: Callable[[BaseException, int], float | None] = lambda error, num_failures: None,
        limit: TimeLimit | None = None,
        is_interrupted: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
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
        self._again = again
        self._limit = limit
        self._is_interrupted = is_interrupted
        self._clock = clock
        self.last_task: Any = None
        # Ctrl-C can come between any two steps of the thread that consumes. To take a lock by
        # `with` is one step; to wait on a condition takes several, and may leave its lock in
        # any state. So the readers, which are never interrupted, wait on the condition, and a
        # consumer waits for a bell of its own: a lock that is released for it.
        self._lock = threading.RLock()  # taken again where a collected prefetcher is stopped
        self._changed = threading.Condition(self._lock)
        self._bells: list[threading.Lock] = []
        _prefetchers.add(self)
        # All below is guarded by the lock.
        self._window: deque[Slot] = deque()
        self._waiting: list[Slot] = []  # for another try
        self._attempts: dict[threading.Thread, Attempt] = {}  # each reader's
        self._readers: set[threading.Thread] = set()  # one that isn't in it ends
        self._leaving: set[threading.Thread] = set()
        self._dropped: set[threading.Thread] = set()  # those that can't be waited for
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
        era, began, num_warnings = self._era, self._clock(), 0
        while True:
            with self._lock:
                self._check_era(era)
                self._drop_late()
                if self._window and self._window[0].is_done:
                    slot = self._window.popleft()
                    self._num_taken += 1
                    self.last_task = slot.task
                    self._watch.took()
                    self._start_readers()
                    self._notify()
                    break
                self._miss()
                # Again after every slice, and where a reader that left has made room.
                self._start_readers()
                bell, seconds = self._hung_up_bell(), self._slice_seconds()
                self._changed.notify_all()
            self._await(bell, seconds)
            waited_seconds = self._clock() - began
            if waited_seconds // self._stall_seconds > num_warnings:
                num_warnings = int(waited_seconds // self._stall_seconds)
                warnings.warn(_stalled(waited_seconds), RuntimeWarning, stacklevel=2)
        if slot.error is not None:
            raise slot.error
        if num_warnings:
            warnings.warn(_went_on(self._clock() - began), RuntimeWarning, stacklevel=2)
        result: R = slot.result
        return result

    def await_next(self, timeout_seconds: float) -> bool:
        """Asks for the next result, and waits until it lies ready.

        Returns:
            Whether it does; False if the time was up.

        Raises:
            StoppedError: If `stop` was called meanwhile, or the wait was interrupted.
        """
        era, deadline = self._era, time.monotonic() + timeout_seconds
        while True:
            with self._lock:
                self._check_era(era)
                self._drop_late()
                if self._window and self._window[0].is_done:
                    return True
                self._miss()
                self._start_readers()
                self._changed.notify_all()
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                bell, seconds = self._hung_up_bell(), min(left, self._slice_seconds())
            self._await(bell, seconds)

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
            wait: Whether to return only when they have ended, or were dropped.
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
                self._drop_late()
                if not leaving & self._leaving:
                    leaving -= self._dropped
                    break
                bell, seconds = self._hung_up_bell(), self._slice_seconds()
            self._heard(bell, seconds)
        if wait:
            for reader in leaving:
                reader.join()

    def _check_era(self, era: int) -> None:
        if self._era != era:
            raise StoppedError("The dataset was closed while a batch was waited for.")

    def _await(self, bell: threading.Lock, timeout_seconds: float) -> None:
        if not self._heard(bell, timeout_seconds) and self._is_interrupted():
            raise StoppedError("Ctrl-C was pressed while a batch was waited for.")

    def _drop_late(self) -> None:
        """Drops the readers whose tasks take too long; these have failed."""
        if (limit := self._limit) is None:
            return
        for reader, attempt in list(self._attempts.items()):
            seconds = attempt.seconds(limit)
            if seconds >= limit.seconds:
                attempt.is_dropped = True
                attempt.worker.kill()
                del self._attempts[reader]
                self._readers.discard(reader)
                self._leaving.discard(reader)
                self._dropped.add(reader)
                self._settle(attempt.slot, None, limit.error(attempt.slot.task, seconds))
                self._notify()

    def _slice_seconds(self) -> float:
        """For how long nothing but a bell can concern the consumer."""
        seconds = [_SLICE_SECONDS, self._idle_seconds, self._seconds_to_due()]
        if (limit := self._limit) is not None:
            seconds += [limit.seconds - each.seconds(limit) for each in self._attempts.values()]
        return max(0.0, min(seconds))

    def _seconds_to_due(self) -> float:
        """Until the next task is to be tried again."""
        now = self._clock()
        return min((slot.due - now for slot in self._waiting if slot.due > now), default=math.inf)

    def _lose_readers(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._attempts = {}
        self._readers, self._leaving, self._dropped = set(), set(), set()

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
        room = self._window_size - len(self._window) + (self._next_due() is not None)
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
            with closing(self._worker()) as worker:
                while (attempt := self._claim(worker)) is not None:
                    self._do(attempt)
        finally:
            with self._lock:
                self._leave()
                self._leaving.discard(threading.current_thread())
                self._dropped.discard(threading.current_thread())
                self._notify()

    def _leave(self) -> None:
        reader = threading.current_thread()
        if reader in self._readers:
            self._readers.discard(reader)
            self._leaving.add(reader)

    def _do(self, attempt: Attempt) -> None:
        slot, result, error = attempt.slot, None, None
        if slot.is_done:
            return
        try:
            with self._watch.reading() as doing:
                try:
                    result = self._through(slot.task, partial(self._work, attempt, doing))
                finally:
                    doing.is_dropped = attempt.is_dropped
        except BaseException as raised:
            error = raised
        with self._lock:
            if attempt.is_dropped:
                return
            del self._attempts[threading.current_thread()]
            self._settle(slot, result, error)
            self._ask()
            self._notify()

    def _work(self, attempt: Attempt, doing: Doing, task: Any) -> Any:
        attempt.worker.prepare(attempt.slot.version)
        attempt.begin(self._limit)
        result, doing.compute_seconds = attempt.worker(task)
        if attempt.is_dropped:
            raise AbandonedError  # before anybody keeps what comes too late
        return result

    def _settle(self, slot: Slot, result: Any, error: BaseException | None) -> None:
        if error is not None:
            slot.num_failures += 1
            seconds = self._again(error, slot.num_failures)
            if seconds is not None:
                slot.due = self._clock() + seconds
                self._waiting.append(slot)
                self._watch.retried()
                return
        slot.result, slot.error = result, error
        slot.is_done = True
        self._num_undone -= 1

    def _ask(self) -> None:
        self._num_workers = self._ask_num_workers()
        self._window_size = max(self._least_window_size, self._num_workers)

    def _worker(self) -> OnThread | InProcess:
        return InProcess(self._function) if self._use_processes else OnThread(self._function)

    def _claim(self, worker: OnThread | InProcess) -> Attempt | None:
        """Takes a task that is to be tried again, or the next one; None ends the reader."""
        while True:
            with self._lock:
                self._await_work()
                if not (self._has_work and self._is_reader) or self._has_too_many:
                    # At once: the consumer must not count on a reader that leaves.
                    self._leave()
                    return None
                if (slot := self._next_due()) is not None:
                    self._waiting.remove(slot)
                    return self._begun(slot, worker)
                self._is_pulling = True
            slot = None
            try:
                task = self._pull()
                if not isinstance(task, Barrier):
                    slot = Slot(task, self._version)
            except StoppedError:
                pass  # of the tasks' own prefetcher: this one is being stopped too
            except BaseException as error:
                slot = Slot(None, self._version, error)
            with self._lock:
                self._is_pulling = False
                if slot is not None:
                    self._window.append(slot)
                    self._num_undone += not slot.is_done
                self._notify()
                if slot is not None:
                    return self._begun(slot, worker)

    def _begun(self, slot: Slot, worker: OnThread | InProcess) -> Attempt:
        attempt = Attempt(slot, worker, self._clock)
        if not slot.is_done:
            self._attempts[threading.current_thread()] = attempt
        return attempt

    def _await_work(self) -> None:
        """Waits until the reader has something to do or is to end, for `idle_seconds` at most."""
        deadline = None
        while self._is_reader and not self._has_work:
            now = time.monotonic()
            deadline = deadline or now + self._idle_seconds
            if now >= deadline:
                return
            self._changed.wait(min(deadline - now, self._seconds_to_due()))

    def _next_due(self) -> Slot | None:
        """The first of the tasks that are to be tried again now."""
        if not self._waiting:
            return None  # as nearly always, without a look at the clock
        now = self._clock()
        return min(
            (slot for slot in self._waiting if slot.due <= now),
            key=lambda slot: slot.due,
            default=None,
        )

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
        if self._next_due() is not None:
            return True
        # Whoever reads in sequence doesn't go on while a task waits for another try.
        is_blocked = len(self._waiting) >= self._num_workers
        return not (is_blocked or self._is_full or self._is_pulling or self._is_held)

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


def _went_on(seconds: float) -> str:
    return f"The source delivered a batch after {seconds:.0f} seconds. Training goes on."
