"""What the pilot says of learning rates, targets and steps; the plan then holds it as constants."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from study.measures import NUM_FINAL
from study.plan import (
    NUM_EVALUATIONS,
    PILOT,
    PILOT_RATES,
    PILOT_SEEDS,
    TARGET_SHARE,
    Run,
    Setting,
    Size,
    Task,
)

if TYPE_CHECKING:
    from study.journal import Record


def fixed_by(records: dict[Run, Record], task: Task) -> str:
    """The target and, for each batch size, learning rate, steps, and milliseconds per step."""
    best = {size: _best_rate(records, task, size) for size in task.sizes}
    smaller = task.sizes[0]
    middle = round(TARGET_SHARE * NUM_EVALUATIONS)  # counted from 1
    around = _median_curve(records, task, smaller, best[smaller])[middle - 2 : middle + 1]
    target = statistics.mean(around)
    lines = [f"{task.name}: target {target:.4f}"]
    for size in task.sizes:
        curve = _median_curve(records, task, size, best[size])
        good = [task.is_good(value, target) for value in curve]
        reached = (n for n in range(1, NUM_EVALUATIONS) if good[n - 1] and good[n])
        num_steps = next(reached, math.inf) * smaller.num_steps / NUM_EVALUATIONS
        runs = [record for run, record in records.items() if _is_of(run, task, size)]
        step_ms = 1e3 * statistics.median(run["cpu_seconds"] for run in runs) / smaller.num_steps
        lines += [
            f"  batches of {size.batch_size}: rate {best[size]:g}, {step_ms:.2f} ms per step",
            f"    target after {num_steps:.0f} steps, over 0.7: {num_steps / TARGET_SHARE:.0f}",
            f"    curve {curve}",
        ]
    return "\n".join(lines)


def _is_of(run: Run, task: Task, size: Size) -> bool:
    return run.setting == Setting(task.name, size.batch_size, PILOT, 1)


def _median_curve(records: dict[Run, Record], task: Task, size: Size, rate: float) -> list[float]:
    setting = Setting(task.name, size.batch_size, PILOT, 1)
    curves = [records[Run(setting, rate, seed)]["quality"] for seed in PILOT_SEEDS]
    return [statistics.median(values) for values in zip(*curves, strict=True)]


def _best_rate(records: dict[Run, Record], task: Task, size: Size) -> float:
    def final(rate: float) -> float:
        quality = statistics.mean(_median_curve(records, task, size, rate)[-NUM_FINAL:])
        return quality if task.lower_is_better else -quality

    return min(PILOT_RATES, key=final)
