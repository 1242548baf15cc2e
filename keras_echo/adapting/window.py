"""`Window`: a short stretch of training under the profiler, and what it tells."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_echo._messages import printable
from keras_echo.adapting.schedule import NUM_COLD, Calls
from keras_echo.adapting.why_slow import why_slow
from keras_echo.profiling import names
from keras_echo.profiling.analyze import analyze_file
from keras_echo.profiling.measuring.result import StepBreakdown, Upstream, from_counters
from keras_echo.profiling.measuring.upstream import upstream
from keras_echo.profiling.recording.lock_sampler import LockSampler
from keras_echo.profiling.traces.limits import TraceError

if TYPE_CHECKING:
    from pathlib import Path

    from keras_echo.factor import EchoFactor
    from keras_echo.metering import Read
    from keras_echo.probe import Probe
    from keras_echo.profiling.measuring.reading import Reading
    from keras_echo.profiling.recording.tracer import Tracer

_PATIENCE = 4.0  # how long to wait for batches to collect, in multiples of what it should take

# Share of the time without a trace for which the dataset may have been waited for all the same: on
# an asynchronous backend the device goes on meanwhile. More means that too few had been collected.
_MOST_WAITING = 0.25

Mark = Callable[[], AbstractContextManager[Any]]


class Measurement(NamedTuple):
    """What a window tells.

    Attributes:
        breakdown: What a step and its input cost.
        problem: Why this comes from counters, where it doesn't come from a trace.
        locked_fraction: Share of the time in which somebody held the interpreter's lock.
        held_seconds: How long the profiler and its trace kept training from going on.
    """

    breakdown: StepBreakdown
    problem: str | None
    locked_fraction: float
    held_seconds: float


@dataclass
class Window:
    """Calls as they come, with the profiler, and calls without a wait and without the profiler.

    The former are the trace: what training waits, and what reading takes.

    The latter tell what a step costs, t_downstream. A step that follows a wait is slower than one
    that doesn't, and so is one that is profiled; on a CPU up to twice. Where training starves, the
    factor is as high as it may be for so long, so that hardly a batch is needed for all of these
    calls. Where it doesn't, batches lie ready.

    Attributes:
        tracer: Records it.
        logdir: The TensorBoard log directory in which the trace is kept.
        probe: The dataset's side.
        factor: The echoing factor.
        synchronize: Waits until the device has done all that it was given.
        step: The number of the first optimizer step.
        calls: How many calls of the train function are to be of which kind.
        steps_per_call: Optimizer steps in each of them.
        tell_early: Told what the calls without a wait say, if they come before the trace.
        since: When something last changed, by the clock; see `upstream`.
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
    tell_early: Callable[[StepBreakdown], object] = lambda _: None
    since: float = -math.inf
    clock: Callable[[], float] = time.perf_counter
    _ready_steps: tuple[int, float] | None = field(default=None, init=False)
    _problem: str | None = field(default=None, init=False)
    _held_seconds: float = field(default=0.0, init=False)
    _lock: LockSampler = field(default_factory=LockSampler, init=False)

    def record(self) -> Generator[None, None, Measurement]:
        """Records it; to be advanced before each of the calls, and once after the last.

        Whatever becomes of the profiler, training goes on and there is a measurement.

        Returns:
            The measurement, as the generator's value.
        """
        try:
            self._lock.start()
            yield from self._without_waits(self.calls.ready_before)
            self._tell_early()
            factor, opened = self.factor.value, self.clock()
            with self._holding():
                self.tracer.start(self.logdir)
            with self._marking():
                waited_seconds, num_uses = self._waited_seconds(), self.probe.num_uses()
                seconds = yield from self._timed(self.calls.traced, self._next_step())
                waited_seconds = self._waited_seconds() - waited_seconds
                num_uses = self.probe.num_uses() - num_uses
            reads = self.probe.recent_reads()
            if self._problem is None:
                with self._holding():
                    self.tracer.stop()
            known = self._upstream(reads, num_uses)
            yield from self._without_waits(self.calls.ready_after)
            self._lock.stop()
            if not self.probe.sees_waits:
                waited_seconds = math.nan
            breakdown = self._from_counters(seconds, waited_seconds, known)
            if self._problem is None:
                with self._holding():
                    first = sum(read.end < opened for read in reads) - 2 * self.probe.num_readers
                    recent = reads[max(0, first) :]
                    breakdown = self._from_trace(recent, known, factor, breakdown)
            return Measurement(breakdown, self._problem, self._lock.fraction, self._held_seconds)
        finally:
            self._lock.stop()
            self.tracer.discard()

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """What is done inside keeps training waiting, and must not end it."""
        started = self.clock()
        try:
            yield
        except Exception as error:
            self._problem = printable(str(error) or repr(error))
        finally:
            self._held_seconds += self.clock() - started

    def _without_waits(self, num_calls: int) -> Generator[None, None, None]:
        if not (num_calls and self.probe.sees_dataset):
            return
        with self._used_often() as is_often:
            num_batches = self.probe.num_fresh(num_calls * self.steps_per_call)
            # One more may be on its way to the device; where each is used often, others are there.
            num_batches += not is_often
            known = self._upstream(self.probe.recent_reads())
            if known is not None:
                self.probe.fill(num_batches, _PATIENCE * num_batches * known.seconds)
            for _ in range(NUM_COLD):
                yield
            num_timed = num_calls - NUM_COLD
            waited_seconds, num_missed = self._waited_seconds(), self.probe.num_missed()
            seconds = yield from self._timed(num_timed, nullcontext)
        # Where no fresh batch was missing, what was waited for is work after the echo, such as
        # augmentation, which belongs downstream.
        is_fed = self.probe.num_missed() == num_missed
        if is_fed or self._waited_seconds() - waited_seconds < _MOST_WAITING * seconds:
            self._ready_steps = num_timed * self.steps_per_call, seconds

    @contextmanager
    def _used_often(self) -> Iterator[bool]:
        """Where training starves, has it use each batch as often as it may; says whether."""
        usual, most = self.factor.value, self.factor.max_uses
        if most is None or most <= usual or not self._is_starving():
            yield False
            return
        self.factor.value = most
        try:
            yield True
        finally:
            if self.factor.value == most:  # nobody else has set it
                self.factor.value = usual

    def _is_starving(self) -> bool:
        # Several readers may end together: then the first of them was waited for.
        reads = self.probe.recent_reads()[-2 * self.probe.num_readers :]
        return any(read.is_awaited for read in reads)

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

    def _upstream(self, reads: Sequence[Read], num_uses: int = 0) -> Upstream | None:
        """What a fresh batch costs.

        Args:
            reads: The last ones.
            num_uses: How many elements the traced steps used, where they aren't a dataset's: an
                echo in a pipeline may be one of examples.
        """
        known = upstream(
            reads,
            self.probe.num_readers,
            may_read_ahead=self.probe.input.is_sequential,
            since=max(self.since, self.probe.readers_since),
        )
        per_step = max(1, round(num_uses / (self.calls.traced * self.steps_per_call)))
        return known and known._replace(seconds=per_step * known.seconds)

    def _tell_early(self) -> None:
        if self._ready_steps is not None:
            num_steps, seconds = self._ready_steps
            known = self._upstream(self.probe.recent_reads())
            self.tell_early(self._counted(num_steps, seconds, math.nan, known))

    def _from_counters(
        self, seconds: float, wait_seconds: float, known: Upstream | None
    ) -> StepBreakdown:
        return self._counted(self.calls.traced * self.steps_per_call, seconds, wait_seconds, known)

    def _counted(
        self, num_steps: int, seconds: float, wait_seconds: float, known: Upstream | None
    ) -> StepBreakdown:
        return from_counters(
            steps=num_steps,
            seconds=seconds,
            wait_seconds=wait_seconds,
            upstream=known,
            num_readers=self.probe.num_readers,
            downstream_seconds=self._ready_step_seconds,
            reading=self._reading(),
        )

    @property
    def _ready_step_seconds(self) -> float | None:
        if self._ready_steps is None:
            return None
        num_steps, seconds = self._ready_steps
        return seconds / num_steps

    def _reading(self) -> Reading | None:
        step_seconds = self._ready_step_seconds
        return why_slow(
            self.probe, self._lock.fraction, math.nan if step_seconds is None else step_seconds
        )

    def _from_trace(
        self, reads: Sequence[Read], known: Upstream | None, factor: float, counted: StepBreakdown
    ) -> StepBreakdown:
        path = self.tracer.write(
            [(read.start, read.seconds) for read in reads],
            readers=self.probe.num_readers,
            notes=_notes(known, counted.reading, self._ready_steps),
        )
        traced = analyze_file(path, echo_factor=factor)
        if math.isnan(traced.ratio) and not math.isnan(counted.ratio):
            raise TraceError(f"The trace has {'; '.join(traced.missing)}")
        return traced


def _notes(
    known: Upstream | None, reading: Reading | None, ready_steps: tuple[int, float] | None
) -> Iterator[tuple[str, dict[str, float | str]]]:
    """What no profiler sees."""
    if known is not None:
        yield (
            names.UPSTREAM,
            {
                names.SECONDS: known.seconds,
                names.BOUND: known.bound,
                names.HELD_FRACTION: known.held_fraction,
            },
        )
    if reading is not None:
        yield names.READING, dict(reading.as_stats())
    if ready_steps is not None:
        num_steps, seconds = ready_steps
        yield names.READY_STEPS, {names.NUM_STEPS: float(num_steps), names.SECONDS: seconds}
