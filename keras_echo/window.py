"""`Window`: a short stretch of training under the profiler, and what it tells."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_echo.profiling import names
from keras_echo.profiling.analyze import analyze_file
from keras_echo.profiling.breakdown import STARVED
from keras_echo.profiling.result import StepBreakdown, from_counters
from keras_echo.schedule import NUM_COLD

if TYPE_CHECKING:
    from pathlib import Path

    from keras_echo.factor import EchoFactor
    from keras_echo.probe import Probe
    from keras_echo.profiling.tracer import Tracer

_PATIENCE = 4.0  # how long to wait for batches to be put aside, in times of what it should take

Mark = Callable[[], AbstractContextManager[Any]]
Read = tuple[float, float]


class Measurement(NamedTuple):
    """What a window tells.

    Attributes:
        breakdown: What a step and its input cost.
        problem: Why this comes from counters, where it doesn't come from a trace.
    """

    breakdown: StepBreakdown
    problem: str | None


@dataclass
class Window:
    """First calls without a wait and without the profiler, then calls as they come, with it.

    The first tell what a step costs, t_downstream. A step that follows a wait is slower than one
    that doesn't, and so is one that is profiled; on a CPU up to twice. So training pauses until
    batches have been put aside, and goes through them. Where it starves the pause costs nothing:
    what limits a starving training are the readers, and they go on. Where it doesn't, batches lie
    ready and there is no pause.

    The second are the trace: what training waits, and what reading takes.

    Attributes:
        tracer: Records it.
        logdir: The TensorBoard log directory in which the trace is kept.
        probe: The dataset's side; None where training reads another dataset.
        factor: The echoing factor.
        synchronize: Waits until the device has done all that it was given.
        step: The number of the first optimizer step.
        num_ready_calls: Calls of the train function without a wait, `NUM_COLD` more than count.
        num_calls: Calls in the trace.
        steps_per_call: Optimizer steps in each of them.
        clock: Seconds, as `time.perf_counter`, by which the dataset dates its reads.
    """

    tracer: Tracer
    logdir: Path
    probe: Probe | None
    factor: EchoFactor
    synchronize: Callable[[], None]
    step: int
    num_ready_calls: int
    num_calls: int
    steps_per_call: int = 1
    clock: Callable[[], float] = time.perf_counter
    _ready_steps: tuple[int, float] | None = field(default=None, init=False)

    def record(self) -> Generator[None, None, Measurement]:
        """Records it; to be advanced before each of the calls, and once behind the last.

        Whatever becomes of the profiler, training goes on and there is a measurement.

        Returns:
            The measurement, as the generator's value.
        """
        if self.probe is not None and self.num_ready_calls > NUM_COLD:
            yield from self._without_waits(self.probe)
        factor, opened = self.factor.value, self.clock()
        problem = self._start()
        try:
            with self._marking():
                waited_seconds = self._waited_seconds()
                seconds = yield from self._timed(self.num_calls, self._next_step())
                waited_seconds = self._waited_seconds() - waited_seconds
            reads = self.probe.reads_since(opened) if self.probe else []
            counted = self._from_counters(seconds, waited_seconds, reads)
            if problem is not None:
                return Measurement(counted, problem)
            return self._from_trace(reads, factor, counted)
        finally:
            self.tracer.discard()

    def _without_waits(self, probe: Probe) -> Generator[None, None, None]:
        num_batches = math.ceil(self.num_ready_calls * self.steps_per_call / self.factor.value)
        # One more, which Keras may have on its way to the device.
        is_ready = probe.fill(num_batches + 1, _PATIENCE * num_batches * probe.read_seconds())
        for _ in range(NUM_COLD):
            yield
        num_calls, waited_seconds = self.num_ready_calls - NUM_COLD, self._waited_seconds()
        seconds = yield from self._timed(num_calls, nullcontext)
        if is_ready and self._waited_seconds() - waited_seconds < STARVED * seconds:
            self._ready_steps = num_calls * self.steps_per_call, seconds

    def _timed(self, num_calls: int, mark: Mark) -> Generator[None, None, float]:
        """Lets calls pass, each in a context of its own; returns their seconds."""
        self.synchronize()
        started = self.clock()
        for left in reversed(range(num_calls)):
            with mark():
                yield
                if not left:
                    # While the last call is still marked: on an asynchronous backend the work of
                    # all of them would otherwise lie behind it.
                    self.synchronize()
        return self.clock() - started

    def _next_step(self) -> Mark:
        numbers = itertools.count(
            self.step + self.num_ready_calls * self.steps_per_call, self.steps_per_call
        )
        return lambda: self.tracer.step(next(numbers))

    def _start(self) -> str | None:
        try:
            self.tracer.start(self.logdir)
        except Exception as error:  # training must not end for what a profiler does
            return str(error) or repr(error)
        return None

    def _marking(self) -> AbstractContextManager[None]:
        if self.probe is None:
            return nullcontext()
        annotate, num_readers = self.tracer.annotate, self.probe.num_readers
        return self.probe.marking(
            read=lambda: annotate(names.READ, **{names.READERS: num_readers}),
            wait=lambda: annotate(names.WAIT),
        )

    def _waited_seconds(self) -> float:
        return self.probe.stats().wait_seconds if self.probe else 0.0

    def _from_counters(
        self, seconds: float, wait_seconds: float, reads: list[Read]
    ) -> StepBreakdown:
        num_ready_steps, ready_seconds = self._ready_steps or (0, 0.0)
        return from_counters(
            steps=self.num_calls * self.steps_per_call,
            seconds=seconds,
            wait_seconds=wait_seconds,
            reads=len(reads),
            read_seconds=sum(seconds for _, seconds in reads),
            num_readers=self.probe.num_readers if self.probe else 1,
            downstream_seconds=ready_seconds / num_ready_steps if num_ready_steps else None,
        )

    def _from_trace(self, reads: list[Read], factor: float, counted: StepBreakdown) -> Measurement:
        num_readers = self.probe.num_readers if self.probe else None
        try:
            path = self.tracer.stop(reads, readers=num_readers, ready_steps=self._ready_steps)
            traced = analyze_file(path, echo_factor=factor)
        except Exception as error:  # training must not end for what a profiler does
            return Measurement(counted, str(error) or repr(error))
        if math.isnan(traced.ratio) and not math.isnan(counted.ratio):
            return Measurement(counted, f"The trace has {'; '.join(traced.missing)}")
        return Measurement(traced, None)
