"""Doing runs: worker processes of one core each, a journal, a display of the progress."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from study.journal import Journal
    from study.plan import Run

# Two workers on two cores mustn't fight: each computes on one thread.
ENVIRONMENT = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
QUEUED_PER_WORKER = 2


def do_runs(
    runs: Iterable[Run],
    journal: Journal,
    *,
    num_jobs: int,
    work: Callable[[Run], dict[str, Any]] | None = None,
) -> None:
    """Does the runs that aren't in the journal, and adds each as soon as it is over.

    Args:
        runs: What to do; runs of one workload and batch size should follow each other, since a
            worker compiles a model for them.
        journal: What was done before, and where the results go.
        num_jobs: Number of worker processes.
        work: From a run to its record; default: training, in this package.
    """
    missing = [run for run in dict.fromkeys(runs) if run not in journal.records]
    progress = _Progress(missing, num_jobs)
    os.environ.update(ENVIRONMENT)
    context = multiprocessing.get_context("spawn")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    numbers = context.SimpleQueue()
    for number in range(num_jobs):
        numbers.put(number)
    pool = ProcessPoolExecutor(num_jobs, context, _begin, (numbers, cores))
    waiting = iter(missing)
    under_way: list[Future[dict[str, Any]]] = []
    try:
        while True:
            room = QUEUED_PER_WORKER * num_jobs - len(under_way)
            under_way += [
                pool.submit(work or _train, run) for run in itertools.islice(waiting, room)
            ]
            if not under_way:
                break
            wait(under_way, return_when=FIRST_COMPLETED)
            over = [future for future in under_way if future.done()]
            under_way = [future for future in under_way if future not in over]
            # What failed comes last: it ends the study.
            for future in sorted(over, key=lambda future: future.exception() is not None):
                journal.add(future.result())
                progress.show(len(journal.records))
    finally:
        pool.shutdown(cancel_futures=True)
    progress.end()


def _begin(numbers: Any, cores: list[int]) -> None:
    """Keeps a worker on one core, and lets it end with the study, even with a killed one."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    number = numbers.get()
    if cores:
        os.sched_setaffinity(0, {cores[number % len(cores)]})


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(run: Run) -> dict[str, Any]:
    # Keras is for the workers alone.
    from study.training import record_of

    return record_of(run)


class _Progress:
    """Says how much is done, and estimates the rest from the pace so far."""

    def __init__(self, missing: list[Run], num_jobs: int) -> None:
        self._num_runs = len(missing)
        self._cost_ms = list(itertools.accumulate((run.cost_ms for run in missing), initial=0))
        self._begin = time.monotonic()
        self._num_jobs = num_jobs
        self._num_done = 0

    def show(self, num_records: int) -> None:
        """Called once for each run that is over; they end about in order."""
        self._num_done += 1
        seconds = time.monotonic() - self._begin
        done_ms, all_ms = self._cost_ms[self._num_done], self._cost_ms[-1]
        left = seconds * (all_ms - done_ms) / done_ms
        print(
            f"\r{self._num_done} of {self._num_runs} runs, {seconds / 60:.1f} min, "
            f"about {left / 60:.1f} min left; {num_records} in the journal ",
            end="",
            file=sys.stderr,
            flush=True,
        )

    def end(self) -> None:
        """Ends the line."""
        if self._num_done:
            print(file=sys.stderr)
