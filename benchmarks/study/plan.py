"""What the study runs: written down, and committed, before its runs. Data and arithmetic alone.

Targets, steps and learning rates come from the pilot (`echoing_study.py --pilot`), which trains
without echoing (e = 1) alone, with seeds that the study doesn't use:

- The learning rate of a workload and batch size is the one of `PILOT_RATES` with the best median
  quality at the end of the pilot's run.
- The target of a workload is the median quality at about 70 % of the steps of its smaller batch
  size: the mean of the three evaluations around there.
- The steps of its larger batch size are those after which the median is at the target in two
  evaluations in a row, over 0.7, rounded up to a multiple of 16.

The steps of the smaller batch sizes are chosen so that the study takes half an hour on two cores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEDS = (0, 1, 2, 3, 4)
FACTORS = (2, 4, 8)
NUM_EVALUATIONS = 16  # in the steps of e = 1, at equal distances; e times as many with echoing
TARGET_SHARE = 0.7  # of the steps of e = 1
# A setting's tuned learning rate is the common one times one of these.
TUNING_GRID = (0.5, 1.0, 2.0)
# The tuned rate is selected on these seeds, a subset of those that are reported.
TUNING_SEEDS = (0, 1)
SHUFFLE_BUFFER_BATCHES = 16  # of batch echoing with a shuffle buffer
EXAMPLE_BUFFER_BATCHES = 8  # of example echoing: each example is held once

PILOT_SEEDS = (100, 101, 102)
PILOT_RATES = (2e-3, 4e-3, 8e-3, 16e-3)

NO_ECHO = "none"
PILOT = "pilot"  # no echoing either
AUTO = "auto"  # the dataset's own shuffle buffer
FOLLOW = "follow"  # the same, with a factor that follows what uses are worth
# What the shuffle buffer holds of whole batches, by the method.
SHUFFLE_BUFFERS = {
    NO_ECHO: 0,
    PILOT: 0,
    "batch": 0,
    "batch_4": 4,
    "batch_shuffled": SHUFFLE_BUFFER_BATCHES,
    "batch_64": 64,
    AUTO: "auto",
    FOLLOW: "auto",
}
IMAGE_METHODS = ("batch", "batch_shuffled", "example_before", "example_after")
TEXT_METHODS = ("batch", "batch_shuffled", "example")
METHOD_NAMES = {
    NO_ECHO: "none",
    "batch": "batch",
    "batch_shuffled": "batch, shuffle buffer",
    AUTO: "batch, the default's buffer",
    FOLLOW: "the same, worth followed",
    "example": "example",
    "example_before": "example, before augmentation",
    "example_after": "example, after augmentation",
}


@dataclass(frozen=True)
class Size:
    """A workload at one batch size.

    Attributes:
        batch_size: Examples in a batch.
        num_steps: Steps of a run at e = 1, S0; a run at e takes e * S0. A multiple of
            `NUM_EVALUATIONS`.
        learning_rate: The common one, of Adam, constant.
        step_ms: Milliseconds of a core per step with echoing, evaluations included: for estimates
            alone.
    """

    batch_size: int
    num_steps: int
    learning_rate: float
    step_ms: float


@dataclass(frozen=True)
class Task:
    """A workload.

    Attributes:
        name: Its name in files and arguments.
        title: What it is.
        measure: What its quality is.
        target: The quality to reach.
        lower_is_better: Whether less is better.
        methods: The kinds of echoing that are compared.
        sizes: Its batch sizes, ascending.
    """

    name: str
    title: str
    measure: str
    target: float
    lower_is_better: bool
    methods: tuple[str, ...]
    sizes: tuple[Size, ...]

    def size(self, batch_size: int) -> Size:
        """The one with that batch size."""
        return next(size for size in self.sizes if size.batch_size == batch_size)

    def is_good(self, quality: float, bound: float) -> bool:
        """Whether a quality is at the bound or better."""
        return quality <= bound if self.lower_is_better else quality >= bound

    def worst(self, qualities: list[float]) -> float:
        """The worst of several qualities."""
        return max(qualities) if self.lower_is_better else min(qualities)


TASKS = {
    task.name: task
    for task in (
        Task(
            "code",
            "Language model, the standard library's sources",
            "bits per byte",
            3.728,
            True,
            TEXT_METHODS,
            (Size(8, 256, 8e-3, 2.6), Size(32, 160, 4e-3, 5.9)),
        ),
        Task(
            "prose",
            "Language model, English prose of Python's documentation",
            "bits per byte",
            3.915,
            True,
            TEXT_METHODS,
            (Size(8, 256, 8e-3, 2.4), Size(32, 160, 4e-3, 5.5)),
        ),
        Task(
            "digits",
            "Image classification, MNIST digits",
            "accuracy",
            0.873,
            False,
            IMAGE_METHODS,
            (Size(16, 320, 8e-3, 1.4), Size(64, 144, 8e-3, 2.1)),
        ),
        Task(
            "photographs",
            "Image classification, patches of colour photographs",
            "accuracy",
            0.56,
            False,
            IMAGE_METHODS,
            (Size(16, 320, 4e-3, 1.4), Size(64, 96, 8e-3, 3.5)),
        ),
        Task(
            "detection",
            "Object detection, digits on colour photographs",
            "AP50",
            0.591,
            False,
            IMAGE_METHODS,
            (Size(8, 320, 8e-3, 2.6), Size(32, 208, 8e-3, 5.5)),
        ),
    )
}


class Setting(NamedTuple):
    """What is compared: a workload, a batch size, a kind of echoing, an echoing factor."""

    task: str
    batch_size: int
    method: str
    factor: int

    @property
    def size(self) -> Size:
        """The numbers that go with the workload and the batch size."""
        return TASKS[self.task].size(self.batch_size)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of a run."""
        return self.factor * self._unechoed_steps

    @property
    def steps_between_evaluations(self) -> int:
        """The same for all factors."""
        return self._unechoed_steps // NUM_EVALUATIONS

    @property
    def _unechoed_steps(self) -> int:
        sizes = TASKS[self.task].sizes
        return (sizes[0] if self.method == PILOT else self.size).num_steps


class Run(NamedTuple):
    """One training run; its fields identify it."""

    setting: Setting
    learning_rate: float
    seed: int

    @property
    def cost_ms(self) -> float:
        """How long it takes, estimated."""
        return self.setting.num_steps * self.setting.size.step_ms


def pilot_runs(tasks: list[str]) -> list[Run]:
    """The pilot's: all batch sizes train for the steps of the smaller one."""
    return [
        Run(Setting(name, size.batch_size, PILOT, 1), rate, seed)
        for name in tasks
        for size in TASKS[name].sizes
        for rate in PILOT_RATES
        for seed in PILOT_SEEDS
    ]


def settings(tasks: list[str]) -> Iterator[Setting]:
    """All settings of these workloads."""
    for name in tasks:
        for size in TASKS[name].sizes:
            yield Setting(name, size.batch_size, NO_ECHO, 1)
            for method in TASKS[name].methods:
                for factor in FACTORS:
                    yield Setting(name, size.batch_size, method, factor)


def rates(setting: Setting) -> tuple[float, ...]:
    """The learning rates that a setting is tried with."""
    return tuple(scale * setting.size.learning_rate for scale in TUNING_GRID)


def first_runs(tasks: list[str]) -> list[Run]:
    """The common learning rate with all seeds, and the rest of the grid with those of tuning."""
    return [
        Run(setting, rate, seed)
        for setting in settings(tasks)
        for rate in rates(setting)
        for seed in (SEEDS if rate == setting.size.learning_rate else TUNING_SEEDS)
    ]


def tuned_runs(tasks: list[str], selected: dict[Setting, float]) -> list[Run]:
    """The selected learning rate with the seeds that tuning left out."""
    return [
        Run(setting, selected[setting], seed)
        for setting in settings(tasks)
        if selected[setting] != setting.size.learning_rate
        for seed in SEEDS
        if seed not in TUNING_SEEDS
    ]
