"""What a comparison of training runs shows, as a table: pure functions of the runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from keras_echo._messages import expected

if TYPE_CHECKING:
    from collections.abc import Sequence

_INSTANT = 1e-9


@dataclass(frozen=True)
class Goal:
    """What a run is to reach.

    Attributes:
        metric: Its name in the middle of a sentence, such as "validation accuracy".
        target: The value to reach.
        is_loss: Whether less is better. If not, the metric is a share in 0..1, shown in per cent.
    """

    metric: str
    target: float
    is_loss: bool = False

    def reached_by(self, value: float) -> bool:
        """Whether a value is as good as the target."""
        return value <= self.target if self.is_loss else value >= self.target

    def shown(self, value: float) -> str:
        """A value of the metric as readers see it."""
        return f"{value:.3f}" if self.is_loss else f"{100 * value:.1f}%"

    def best(self, run: Run) -> float:
        """The best value of a run."""
        return (min if self.is_loss else max)(point.value for point in run.curve)

    def reached(self, run: Run) -> Point | None:
        """The first evaluation of a run that is as good as the target, if there is one."""
        return next((point for point in run.curve if self.reached_by(point.value)), None)

    def __str__(self) -> str:
        return f"{self.shown(self.target)} {self.metric}"


class Point(NamedTuple):
    """One evaluation.

    Attributes:
        seconds: Since the run's training began.
        steps: Optimizer steps so far.
        fresh_batches: Fresh batches that were used so far.
        value: Of the goal's metric.
        num_reads: Batches read from the source so far, those that wait for their use included; a
            cache's aren't. None if nobody counted.
    """

    seconds: float
    steps: int
    fresh_batches: int
    value: float
    num_reads: int | None = None


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        name: How to call it in the middle of a sentence, such as "with echoing".
        factor: Its echoing factor, at the end.
        curve: Its evaluations in the order of time.
        step_seconds: What a training step takes whose batch is there, if that was measured.
    """

    name: str
    factor: float
    curve: tuple[Point, ...]
    step_seconds: float | None = None

    def __post_init__(self) -> None:
        if not self.curve:
            raise ValueError(
                expected(
                    "curve", "hold an evaluation", self.curve, "Evaluate the run at least once"
                )
            )

    @property
    def steps_per_second(self) -> float:
        """Optimizer steps per second, from the first evaluation to the last."""
        first, last = self.curve[0], self.curve[-1]
        if len(self.curve) == 1:
            first = Point(0.0, 0, 0, 0.0)
        return (last.steps - first.steps) / max(last.seconds - first.seconds, _INSTANT)

    @property
    def training_share(self) -> float | None:
        """The share of the time that was spent in training steps, if known.

        The rest went into waiting for data, evaluation, compilation and profiling.
        """
        if self.step_seconds is None:
            return None
        last = self.curve[-1]
        return min(1.0, last.steps * self.step_seconds / max(last.seconds, _INSTANT))


def table(runs: Sequence[Run], goal: Goal, ratio: float) -> str:
    """Compares runs by what they needed to reach a goal.

    Args:
        runs: The first is the baseline.
        goal: What to reach.
        ratio: R, reading a fresh batch over training on it.

    Returns:
        Lines of plain text: a heading, a row for each run, a sentence for each run but the first.
    """
    head = (
        *("run", "factor", "seconds", "fresh batches", "reads", "steps"),
        *("steps/s", "training", "best"),
    )
    rows = [head, *(_row(run, goal) for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    heading = (
        f"Until {goal}, R = {ratio:.1f} "
        f"(reading a batch takes {ratio:.1f} times as long as training on it):"
    )
    verdicts = [_verdict(runs[0], run, goal) for run in runs[1:]]
    return "\n".join([heading, "", *lines, "", *verdicts]).rstrip()


def _row(run: Run, goal: Goal) -> tuple[str, ...]:
    point = goal.reached(run)
    needed = (
        (
            f"{point.seconds:.1f}",
            str(point.fresh_batches),
            "-" if point.num_reads is None else str(point.num_reads),
            str(point.steps),
        )
        if point
        else ("not reached", "-", "-", "-")
    )
    share = run.training_share
    training = "-" if share is None else f"{share:.0%}"
    rates = f"{run.steps_per_second:.1f}", training, goal.shown(goal.best(run))
    return (run.name, f"{run.factor:.1f}", *needed, *rates)


def _verdict(base: Run, run: Run, goal: Goal) -> str:
    before, after = goal.reached(base), goal.reached(run)
    if before and after:
        fresh = f"from {after.fresh_batches} fresh batches instead of {before.fresh_batches}"
        times = before.seconds / max(after.seconds, _INSTANT)
        if times >= 1.05:
            return f"{run.name}: {goal} {times:.1f}x sooner than {base.name}, {fresh}."
        if times > 1 / 1.05:
            return f"{run.name}: {goal} in about the same time as {base.name}, {fresh}."
        return f"{run.name}: {goal} {1 / times:.1f}x LATER than {base.name}, {fresh}."
    if before:
        return (
            f"{run.name}: never reached {goal} (best {_ran(run, goal)}), "
            f"{base.name} did after {before.seconds:.1f} s. Echoing did not help here."
        )
    if not after:
        return (
            f"No speed-up to tell: {goal} was never reached, neither {base.name} "
            f"(best {_ran(base, goal)}) nor {run.name} (best {_ran(run, goal)})."
        )
    times = base.curve[-1].seconds / max(after.seconds, _INSTANT)
    missed = f"{base.name} never reached it (best {_ran(base, goal)})"
    if times <= 1:
        return f"No speed-up to tell: {missed}, {run.name} trained longer to reach it."
    return f"{run.name}: {goal} more than {times:.1f}x sooner, {missed}."


def _ran(run: Run, goal: Goal) -> str:
    return f"{goal.shown(goal.best(run))} in {run.curve[-1].seconds:.1f} s"
