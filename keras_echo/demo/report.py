"""What the demo's runs show, as a table: pure functions of the runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from keras_echo._messages import expected

if TYPE_CHECKING:
    from collections.abc import Sequence

_INSTANT = 1e-9


class Point(NamedTuple):
    """One evaluation.

    Attributes:
        seconds: Since the run's training began.
        steps: Optimizer steps so far.
        fresh_batches: Batches read so far.
        validation_accuracy: In 0..1.
    """

    seconds: float
    steps: int
    fresh_batches: int
    validation_accuracy: float


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        name: How to call it in the middle of a sentence, such as "with echoing".
        factor: Its echoing factor.
        curve: Its evaluations in the order of time.
    """

    name: str
    factor: float
    curve: tuple[Point, ...]

    def __post_init__(self) -> None:
        if not self.curve:
            raise ValueError(
                expected(
                    "curve", "hold an evaluation", self.curve, "Evaluate the run at least once"
                )
            )

    def reached(self, target: float) -> Point | None:
        """The first evaluation with at least the target accuracy, if there is one."""
        return next((p for p in self.curve if p.validation_accuracy >= target), None)

    @property
    def best(self) -> float:
        """The best validation accuracy of the run."""
        return max(point.validation_accuracy for point in self.curve)

    @property
    def steps_per_second(self) -> float:
        """Optimizer steps per second, from the first evaluation to the last."""
        first, last = self.curve[0], self.curve[-1]
        if len(self.curve) == 1:
            first = Point(0.0, 0, 0, 0.0)
        return (last.steps - first.steps) / max(last.seconds - first.seconds, _INSTANT)


def table(runs: Sequence[Run], target: float, ratio: float) -> str:
    """Compares runs by what they needed to reach an accuracy.

    Args:
        runs: The first is the baseline.
        target: The validation accuracy, in 0..1.
        ratio: R, reading a fresh batch over training on it.

    Returns:
        Lines of plain text: a heading, a row for each run, a sentence for each run but the first.
    """
    head = ("run", "factor", "seconds", "fresh batches", "steps", "steps/s")
    rows = [head, *(_row(run, target) for run in runs)]
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
        f"Until {percent(target)} validation accuracy, R = {ratio:.1f} "
        f"(reading a batch takes {ratio:.1f} times as long as training on it):"
    )
    verdicts = [_verdict(runs[0], run, target) for run in runs[1:]]
    return "\n".join([heading, "", *lines, "", *verdicts]).rstrip()


def _row(run: Run, target: float) -> tuple[str, ...]:
    point = run.reached(target)
    needed = (
        (f"{point.seconds:.1f}", str(point.fresh_batches), str(point.steps))
        if point
        else ("not reached", "-", "-")
    )
    return (run.name, f"{run.factor:.1f}", *needed, f"{run.steps_per_second:.1f}")


def _verdict(base: Run, run: Run, target: float) -> str:
    before, after = base.reached(target), run.reached(target)
    goal = f"{percent(target)} validation accuracy"
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
            f"{run.name}: never reached {goal} (best {_ran(run)}), "
            f"{base.name} did after {before.seconds:.1f} s. Echoing did not help here."
        )
    if not after:
        return (
            f"No speed-up to tell: {goal} was never reached, neither {base.name} "
            f"(best {_ran(base)}) nor {run.name} (best {_ran(run)})."
        )
    times = base.curve[-1].seconds / max(after.seconds, _INSTANT)
    missed = f"{base.name} never reached it (best {_ran(base)})"
    if times <= 1:
        return f"No speed-up to tell: {missed}, {run.name} trained longer to reach it."
    return f"{run.name}: {goal} more than {times:.1f}x sooner, {missed}."


def _ran(run: Run) -> str:
    return f"{percent(run.best)} in {run.curve[-1].seconds:.1f} s"


def percent(accuracy: float) -> str:
    """An accuracy in 0..1 as readers see it."""
    return f"{100 * accuracy:.1f}%"
