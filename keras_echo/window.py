"""`Window`: a short stretch of training under the profiler, and what it tells."""

from __future__ import annotations

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

if TYPE_CHECKING:
    from pathlib import Path

    from keras_echo.factor import EchoFactor
    from keras_echo.probe import Probe
    from keras_echo.profiling.tracer import Tracer

_NUM_COLD = 3  # calls after a pause that are not counted: the first was 1.5 times as slow on a CPU
_PATIENCE = 4.0  # how long to wait for batches to be put aside, in times of what was counted

Mark = Callable[[], AbstractContextManager[Any]]


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
    """A window: first calls as they come, then calls with batches put aside.

    A step that follows a wait takes longer than one that doesn't, so while training starves no
    window shows what a step costs that never does. So in the midst of it training pauses until a
    few batches have been put aside, and goes through them without a wait. The pause costs
    nothing: what limits a starving training are the readers, and they go on. Where training does
    not starve there is no pause.

    Attributes:
        tracer: Records it.
        logdir: The TensorBoard log directory in which the trace is kept.
        probe: The dataset's side; None where training reads another dataset.
        factor: The echoing factor.
        synchronize: Waits until the device has done all that it was given.
        step: The number of the first optimizer step.
        num_calls: Calls of the train function.
        steps_per_call: Optimizer steps in each of them.
        clock: Seconds, as `time.perf_counter`, by which the dataset dates its reads.
    """

    tracer: Tracer
    logdir: Path
    probe: Probe | None
    factor: EchoFactor
    synchronize: Callable[[], None]
    step: int
    num_calls: int
    steps_per_call: int = 1
    clock: Callable[[], float] = time.perf_counter
    _num_counted: int = field(default=0, init=False)
    _seconds: float = field(default=0.0, init=False)
    _wait_seconds: float = field(default=0.0, init=False)
    _ready_step_seconds: float | None = field(default=None, init=False)

    def record(self) -> Generator[None, None, Measurement]:
        """Records it; to be advanced before each of the calls, and once behind the last.

        Whatever becomes of the profiler, training goes on and there is a measurement.

        Returns:
            The measurement, as the generator's value.
        """
        factor, opened = self.factor.value, self.clock()
        problem = self._start()
        try:
            with self._marking():
                yield from self._calls()
            reads = self.probe.reads_since(opened) if self.probe else []
            counted = self._from_counters(reads)
            if problem is not None:
                return Measurement(counted, problem)
            return self._from_trace(reads, factor, counted)
        finally:
            self.tracer.discard()

    def _calls(self) -> Generator[None, None, None]:
        num_as_they_come = max(1, (self.num_calls - _NUM_COLD) // 2)
        num_ready = self.num_calls - num_as_they_come - _NUM_COLD
        yield from self._as_they_come(num_as_they_come)
        if num_ready > 0 and self._is_starving and self._put_aside(num_ready + _NUM_COLD):
            for _ in range(_NUM_COLD):
                yield
            seconds = yield from self._timed(num_ready, self._mark(names.READY_STEP))
            self._ready_step_seconds = seconds / (num_ready * self.steps_per_call)
        else:
            yield from self._as_they_come(self.num_calls - num_as_they_come)

    def _as_they_come(self, num_calls: int) -> Generator[None, None, None]:
        waited_seconds = self._waited_seconds()
        self._seconds += yield from self._timed(num_calls, self._next_step)
        self._wait_seconds += self._waited_seconds() - waited_seconds

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

    def _put_aside(self, num_calls: int) -> bool:
        if self.probe is None:
            return False
        num_batches = math.ceil(num_calls * self.steps_per_call / self.factor.value)
        # One more, which Keras may have on its way to the device.
        with self.tracer.annotate(names.FILL):
            return self.probe.fill(num_batches + 1, _PATIENCE * self._seconds)

    def _start(self) -> str | None:
        try:
            self.tracer.start(self.logdir)
        except Exception as error:  # training must not end for what a profiler does
            return str(error) or repr(error)
        return None

    def _next_step(self) -> AbstractContextManager[Any]:
        number = self.step + self._num_counted * self.steps_per_call
        self._num_counted += 1
        return self.tracer.step(number)

    def _mark(self, name: str, **stats: int) -> Mark:
        return lambda: self.tracer.annotate(name, **stats)

    def _marking(self) -> AbstractContextManager[None]:
        if self.probe is None:
            return nullcontext()
        read = self._mark(names.READ, **{names.READERS: self.probe.num_readers})
        return self.probe.marking(read, self._mark(names.WAIT))

    @property
    def _is_starving(self) -> bool:
        return self._wait_seconds >= STARVED * self._seconds

    def _waited_seconds(self) -> float:
        return self.probe.stats().wait_seconds if self.probe else 0.0

    def _from_counters(self, reads: list[tuple[float, float]]) -> StepBreakdown:
        return from_counters(
            steps=self._num_counted * self.steps_per_call,
            seconds=self._seconds,
            wait_seconds=self._wait_seconds,
            reads=len(reads),
            read_seconds=sum(seconds for _, seconds in reads),
            num_readers=self.probe.num_readers if self.probe else 1,
            downstream_seconds=self._ready_step_seconds,
        )

    def _from_trace(
        self, reads: list[tuple[float, float]], factor: float, counted: StepBreakdown
    ) -> Measurement:
        num_readers = self.probe.num_readers if self.probe else None
        try:
            path = self.tracer.stop(reads, readers=num_readers)
            traced = analyze_file(path, echo_factor=factor)
        except Exception as error:  # training must not end for what a profiler does
            return Measurement(counted, str(error) or repr(error))
        if math.isnan(traced.ratio) and not math.isnan(counted.ratio):
            return Measurement(counted, f"The trace has {'; '.join(traced.missing)}")
        return Measurement(traced, None)
