"""`StepBreakdown`, what is known about a step and its input, and its making from counters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from keras_echo.profiling.measuring.reading import Reading

Bound = Literal["exact", "lower", "upper"]

STARVED = 0.05
"""From this share of a step spent waiting on, a window counts as starved."""

_MARK_STEPS = {
    "tensorflow": "tf.profiler.experimental.Trace with step_num= and _r=1",
    "jax": "jax.profiler.StepTraceAnnotation",
    "torch": "call step() of torch.profiler.profile",
}
_SHOW_WAITS = {
    "tensorflow": "record with host_tracer_level = 2 in tf.profiler.experimental.ProfilerOptions",
    "jax": "record with python_tracer_level = 1 in jax.profiler.ProfileOptions",
    "torch": "take the batches from a torch DataLoader within the window",
}


def missing_steps(backend: str) -> str:
    """Says that no step was found, and how to mark steps with the profiler of the backend."""
    how = _MARK_STEPS.get(backend) or ", ".join(_MARK_STEPS.values())
    return (
        "no training steps: profile through keras_echo.DataEchoCallback, or mark every training "
        f"step with the profiler's own annotation ({how})"
    )


def missing_waits(backend: str) -> str:
    """Says that no wait would be seen, and how to record it with the profiler of the backend."""
    how = _SHOW_WAITS.get(backend, "record with the profiler's host tracer switched on")
    return f"no input wait: train on a keras_echo.EchoingPyDataset, or {how}"


def missing_device(backend: str) -> str:
    """Says that the trace holds no work of a device, and how to record it."""
    text = "no device events: switch the profiler's device tracer on"
    on_cpu = "; on a CPU, JAX runs small steps on the training thread, which shows none"
    return text + on_cpu if backend == "jax" else text


MISSING_READS = (
    "no upstream reads, so R is a bound: train on a keras_echo.EchoingPyDataset to have them marked"
)
MISSING_READERS = (
    "no number of readers, so those that were seen are counted: train on a "
    "keras_echo.EchoingPyDataset, or pass readers= with each read"
)
MISSING_WORK = "no time outside the input wait: profile more steps, after compilation"


class Upstream(NamedTuple):
    """What a fresh batch costs.

    Attributes:
        seconds: t_upstream.
        bound: Whether that is the least that it costs ("lower"), or what it costs.
        held_fraction: Share of the time in which readers had nothing to do, because nobody took
            what they had read: the mean over the readers.
    """

    seconds: float
    bound: Bound
    held_fraction: float


@dataclass(frozen=True)
class StepBreakdown:
    """What one optimizer step costs, and what its input costs. NaN is what is not known."""

    steps: int
    """Optimizer steps in the window."""
    step_seconds: float
    """Mean time from one optimizer step to the next."""
    wait_seconds: float
    """Mean time per optimizer step in which training asked for a batch and had none."""
    upstream_seconds: float
    """t_upstream: seconds per fresh batch, all readers at work."""
    downstream_seconds: float
    """t_downstream: seconds per optimizer step that never waits."""
    origin: Literal["trace", "counters"] = "trace"
    bound: Bound = "exact"
    """Whether R is at least ("lower") or at most ("upper") `ratio`."""
    num_readers: int | None = None
    backend: str = "unknown"
    hardware: str = "CPU"
    starved_fraction: float = math.nan
    """Share of the step in which the device idles because training waits for a batch."""
    held_fraction: float = math.nan
    """Share of the time in which readers had nothing to do, because nobody took what they had
    read: the mean over the readers."""
    reading: Reading | None = None
    """Why a read takes as long as it does, where the dataset said so."""
    missing: tuple[str, ...] = ()
    """What the trace could not say, and how to record it."""
    path: str | None = None
    """The file that this was read from."""

    @property
    def ratio(self) -> float:
        """R, t_upstream over t_downstream; see `bound`."""
        return _quotient(self.upstream_seconds, self.downstream_seconds)

    @property
    def wait_fraction(self) -> float:
        """Share of the step that is wait."""
        return _quotient(self.wait_seconds, self.step_seconds)

    @property
    def recommended_factor(self) -> float:
        """The echoing factor up to which the extra steps are free: R, at least 1."""
        is_known = math.isfinite(self.ratio) and self.bound != "upper"
        return max(1.0, self.ratio) if is_known else 1.0

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    @property
    def input_bound(self) -> bool:
        """Whether reading takes longer than training, as far as is known."""
        return self.ratio > 1.0 and self.bound != "upper"

    @property
    def ratio_range(self) -> tuple[float, float]:
        """The values that R can have, as far as the trace says."""
        if self.bound == "exact":
            return self.ratio, self.ratio
        # Without echoing, a fresh batch arrives with every step, whatever the reading costs.
        most = self.step_seconds / self.downstream_seconds if self.downstream_seconds else math.nan
        return (0.0, self.ratio) if self.bound == "upper" else (self.ratio, max(most, self.ratio))

    def speedup(self, factor: float | None = None) -> float:
        """Optimizer steps per second with echoing over those without, by the cost model.

        Args:
            factor: The echoing factor; default: the recommended one.

        Returns:
            The quotient; 1 where nothing is known.
        """
        factor = self.recommended_factor if factor is None else factor
        up, down = self.upstream_seconds, self.downstream_seconds
        if not (math.isfinite(self.ratio) and down > 0):
            return 1.0
        return factor * max(up, down) / max(up, factor * down)


def from_counters(
    *,
    steps: int,
    seconds: float,
    wait_seconds: float,
    upstream: Upstream | None,
    num_readers: int,
    downstream_seconds: float | None = None,
    backend: str = "unknown",
    reading: Reading | None = None,
) -> StepBreakdown:
    """Works out the same from what the dataset counted, where no trace is to be had.

    Where it isn't known otherwise, the step's own time is taken as what is left of the wall clock
    after the wait, which is right where the training thread runs in step with the device.

    Args:
        steps: Optimizer steps in the window.
        seconds: Wall-clock time of the window.
        wait_seconds: How long the training thread waited for batches, in total; NaN if unknown.
        upstream: What a fresh batch costs, if that is known.
        num_readers: How many reads can run at the same time.
        downstream_seconds: What an optimizer step took while batches lay ready.
        backend: The Keras backend.
        reading: Why a read takes as long as it does, if that is known.

    Returns:
        The breakdown, its origin "counters".
    """
    steps = max(steps, 0)
    step = seconds / steps if steps else math.nan
    is_seen = steps and math.isfinite(wait_seconds)
    wait = min(max(wait_seconds, 0.0), seconds) / steps if is_seen else math.nan
    down = step - wait if downstream_seconds is None else downstream_seconds
    missing = tuple(
        text
        for text, lacks in (
            (missing_steps(backend), not steps),
            (MISSING_READS, upstream is None),
            (MISSING_WORK, bool(steps) and not down > 0),
        )
        if lacks
    )
    return StepBreakdown(
        steps=steps,
        step_seconds=step,
        wait_seconds=wait,
        upstream_seconds=upstream.seconds if upstream else math.nan,
        downstream_seconds=down if down > 0 else math.nan,
        origin="counters",
        bound=upstream.bound if upstream else "exact",
        num_readers=num_readers,
        backend=backend,
        starved_fraction=_quotient(wait, step),
        held_fraction=upstream.held_fraction if upstream else math.nan,
        reading=reading,
        missing=missing,
    )


def _quotient(dividend: float, divisor: float) -> float:
    """NaN where it isn't finite."""
    quotient = dividend / divisor if divisor else math.nan
    return quotient if math.isfinite(quotient) else math.nan
