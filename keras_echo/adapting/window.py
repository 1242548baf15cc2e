"""`Window`: a short stretch of training under the profiler, and what it tells."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_echo.adapting.schedule import NUM_COLD, Calls
from keras_echo.profiling import names
from keras_echo.profiling.analyze import analyze_file
from keras_echo.profiling.measuring.full_load import full_load_seconds
from keras_echo.profiling.measuring.result import StepBreakdown, from_counters
from keras_echo.profiling.traces.xspace import TraceError

if TYPE_CHECKING:
    from pathlib import Path

    from keras_echo.factor import EchoFactor
    from keras_echo.metering import Probe
    from keras_echo.profiling.recording.tracer import Tracer

_PATIENCE = 4.0  # how long to wait for batches to collect, in multiples of what it should take

# Share of the time without a trace for which the dataset may have been waited for all the same.
# That much can be work after the echo, such as augmentation, which belongs downstream; and on an
# asynchronous backend the device goes on meanwhile. More means that too few had been collected.
_MOST_WAITING = 0.25

Mark = Callable[[], AbstractContextManager[Any]]
Read = tuple[float, float]


class _Reads(NamedTuple):
    """What the dataset read.

    Attributes:
        ended: Reads that ended in the trace or shortly before it.
        full_load_seconds: What a fresh batch costs while all readers are at work, where known.
    """

    ended: list[Read]
    full_load_seconds: float | None


class Measurement(NamedTuple):
    """What a window tells.

    Attributes:
        breakdown: What a step and its input cost.
        problem: Why this comes from counters, where it doesn't come from a trace.
        held_seconds: How long the profiler and its trace kept training from going on.
    """

    breakdown: StepBreakdown
    problem: str | None
    held_seconds: float


@dataclass
class Window:
    """Calls as they come, with the profiler, and calls without a wait and without the profiler.

    The former are the trace: what training waits, and what reading takes.

    The latter tell what a step costs, t_downstream. A step that follows a wait is slower than one
    that doesn't, and so is one that is profiled; on a CPU up to twice. So training pauses until
    enough batches have been read, and goes through them. Where it starves the pause costs nothing:
    what limits a starving training are the readers, and they go on. Where it doesn't, batches lie
    ready and there is no pause.

    Attributes:
        tracer: Records it.
        logdir: The TensorBoard log directory in which the trace is kept.
        probe: The dataset's side.
        factor: The echoing factor.
        synchronize: Waits until the device has done all that it was given.
        step: The number of the first optimizer step.
        calls: How many calls of the train function are to be of which kind.
        steps_per_call: Optimizer steps in each of them.
        clock: Seconds, as `time.perf_counter`, by which the dataset dates its reads.
    """

    tracer: Tracer
    logdir: Path
    probe: Probe
    factor: EchoFactor
    synchronize: Callable[[], None]
    step: int
    calls: Calls
    steps_per_call: int = 1
    clock: Callable[[], float] = time.perf_counter
    _ready_steps: tuple[int, float] | None = field(default=None, init=False)
    _problem: str | None = field(default=None, init=False)
    _held_seconds: float = field(default=0.0, init=False)

    def record(self) -> Generator[None, None, Measurement]:
        """Records it; to be advanced before each of the calls, and once after the last.

        Whatever becomes of the profiler, training goes on and there is a measurement.

        Returns:
            The measurement, as the generator's value.
        """
        try:
            yield from self._without_waits(self.calls.ready_before)
            factor, opened = self.factor.value, self.clock()
            with self._holding():
                self.tracer.start(self.logdir)
            with self._marking():
                waited_seconds = self._waited_seconds()
                seconds = yield from self._timed(self.calls.traced, self._next_step())
                waited_seconds = self._waited_seconds() - waited_seconds
            reads = self._reads_since(opened)
            if self._problem is None:
                with self._holding():
                    self.tracer.stop()
            yield from self._without_waits(self.calls.ready_after)
            breakdown = self._from_counters(seconds, waited_seconds, reads)
            if self._problem is None:
                with self._holding():
                    breakdown = self._from_trace(reads, factor, breakdown)
            return Measurement(breakdown, self._problem, self._held_seconds)
        finally:
            self.tracer.discard()

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """What is done inside keeps training waiting, and must not end it."""
        started = self.clock()
        try:
            yield
        except Exception as error:
            self._problem = str(error) or repr(error)
        finally:
            self._held_seconds += self.clock() - started

    def _without_waits(self, num_calls: int) -> Generator[None, None, None]:
        if not (num_calls and self.probe.sees_dataset):
            return
        num_batches = math.ceil(num_calls * self.steps_per_call / self.factor.value)
        # One more, which Keras may have on its way to the device.
        is_ready = self.probe.fill(
            num_batches + 1, _PATIENCE * num_batches * self.probe.read_seconds()
        )
        for _ in range(NUM_COLD):
            yield
        num_timed, waited_seconds = num_calls - NUM_COLD, self._waited_seconds()
        seconds = yield from self._timed(num_timed, nullcontext)
        if is_ready and self._waited_seconds() - waited_seconds < _MOST_WAITING * seconds:
            self._ready_steps = num_timed * self.steps_per_call, seconds

    def _timed(self, num_calls: int, mark: Mark) -> Generator[None, None, float]:
        """Lets calls pass, each in a context of its own; returns their seconds."""
        self.synchronize()
        started = self.clock()
        for left in reversed(range(num_calls)):
            with mark():
                yield
                if not left:
                    # While the last call is still marked: on an asynchronous backend the work of
                    # all of them would otherwise lie after it.
                    self.synchronize()
        return self.clock() - started

    def _next_step(self) -> Mark:
        numbers = itertools.count(
            self.step + self.calls.ready_before * self.steps_per_call, self.steps_per_call
        )
        return lambda: self.tracer.step(next(numbers))

    def _marking(self) -> AbstractContextManager[None]:
        annotate, num_readers = self.tracer.annotate, self.probe.num_readers
        return self.probe.marking(
            read=lambda: annotate(names.READ, **{names.READERS: num_readers}),
            wait=lambda: annotate(names.WAIT),
        )

    def _waited_seconds(self) -> float:
        return self.probe.stats().wait_seconds

    def _reads_since(self, opened: float) -> _Reads:
        recent = self.probe.reads_since(opened, num_before=4)
        at_full_load = full_load_seconds(recent, self.probe.num_readers)
        return _Reads(self.probe.reads_since(opened), at_full_load)

    def _from_counters(self, seconds: float, wait_seconds: float, reads: _Reads) -> StepBreakdown:
        num_ready_steps, ready_seconds = self._ready_steps or (0, 0.0)
        return from_counters(
            steps=self.calls.traced * self.steps_per_call,
            seconds=seconds,
            wait_seconds=wait_seconds,
            reads=len(reads.ended),
            read_seconds=sum(seconds for _, seconds in reads.ended),
            num_readers=self.probe.num_readers,
            full_load_seconds=reads.full_load_seconds,
            downstream_seconds=ready_seconds / num_ready_steps if num_ready_steps else None,
        )

    def _from_trace(self, reads: _Reads, factor: float, counted: StepBreakdown) -> StepBreakdown:
        path = self.tracer.write(
            reads.ended,
            readers=self.probe.num_readers,
            full_load_seconds=reads.full_load_seconds,
            ready_steps=self._ready_steps,
        )
        traced = analyze_file(path, echo_factor=factor)
        if math.isnan(traced.ratio) and not math.isnan(counted.ratio):
            raise TraceError(f"The trace has {'; '.join(traced.missing)}")
        return traced
