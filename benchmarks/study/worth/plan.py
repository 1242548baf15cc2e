"""What the study of worth runs and asks: written down, and committed, before its runs.

Workloads, batch sizes, targets, steps S0 and learning rates (the common ones) are those of
`study.plan`. A run ends when its target is reached, or after e * S0 steps: it then has read the F
examples that S0 steps without echoing read, and what its buffers hold.

Time is counted in t_upstream, the time of reading a fresh batch; a step takes 1 / R of it. See
`study.worth.measures`.

The questions:

1. With the default, `shuffle_buffer="auto"`, at e = 4, language models and image classifiers, of
   either batch size, need at most `MOST_FRESH` of the fresh examples of e = 1: medians, 8
   comparisons, all must hold. The earlier study had answered that for a buffer of 16 batches that
   is full from the beginning, before this bound was set. The default holds the uses of 8 batches
   (8 e of them): that was chosen after a pilot of the smaller batch sizes with seeds 100 to 102,
   in which 16 uses did worse at e = 8 on four of five workloads (0.97, 0.73, 0.85, 0.36 of the
   fresh examples of e = 1, against 0.39, 0.42, 0.30, 0.29; photographs 0.17 against 0.19).
2. Where the factor is R, for R = 4 and 8, the default never reaches a target later than e = 1
   does: medians of the time, 20 comparisons, all must hold.
3. Does following worth find the right factor? Of the 20 cases (workload, batch size, R), the median
   time with `worth="follow"` over that with the best fixed factor of 1, 2, 4, 8 of the default,
   which is known in hindsight alone. If at least `FOLLOW_SHARE` of the ratios are at most
   `FOLLOW_CLOSE`, and none is above `FOLLOW_MOST`, "follow" becomes the callback's default, and
   otherwise "report".
4. Does worth predict? For each workload, batch size, method ("batch" and the default) and
   e = 2, 4, 8: the worth of the last use over that of the first, against the data saved (median
   fresh examples at e = 1 over those at e). It predicts if the rank correlation (Spearman) over the
   settings of each e is at least `CORRELATION`. The mean worth of all uses and their sum, over the
   first use's, are reported beside it. Left out are settings whose first use isn't surely worth
   something (by two standard errors), over which all others are taken, and those without any
   median at e = 1; the page says how many are left.
5. Without a verdict: the default's rule for the buffer's size, against 0, 4, 16 and 64 batches at
   e = 4; and e = 16 with larger batches.

Measures are taken of medians over seeds, where a run that never reached its target counts as
infinite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_echo.adapting.worth_window import NUM_UNSEEN
from study.plan import AUTO, FOLLOW, NO_ECHO, SEEDS, TASKS, Run, Setting

if TYPE_CHECKING:
    from collections.abc import Iterator

FACTORS = (2, 4, 8)
RATIOS = (4, 8)  # R
BUFFERS = {0: "batch", 4: "batch_4", 16: "batch_shuffled", 64: "batch_64"}  # batches: method
BUFFER_FACTOR = 4
LARGE_FACTOR = 16

MOST_FRESH = 0.7
FOLLOW_SHARE, FOLLOW_CLOSE, FOLLOW_MOST = 0.8, 1.1, 1.5
CORRELATION = 0.7

# Where the factor is fixed, measuring costs nothing: every other window of so many steps as the
# library's have. The first one is left out, in which the loss falls most. Where worth is followed,
# measuring has to keep to a share of the time.
FOLLOW_BUDGET = 0.05
STEPS_PER_LOSS = 1 / 3  # what the loss on a batch takes: the forward pass of a step


def methods(task: str) -> tuple[str, ...]:
    """Those that are compared at all factors."""
    example = next(m for m in TASKS[task].methods if m in ("example", "example_before"))
    return ("batch", AUTO, example)


def settings(tasks: list[str]) -> Iterator[Setting]:
    """All settings of these workloads. With `FOLLOW`, the factor is the R at which it begins."""
    for name in tasks:
        for number, size in enumerate(TASKS[name].sizes):
            kinds = [(NO_ECHO, 1)]
            kinds += [(method, factor) for method in methods(name) for factor in FACTORS]
            kinds += [(method, BUFFER_FACTOR) for held, method in BUFFERS.items() if held]
            if number == len(TASKS[name].sizes) - 1:
                kinds.append((AUTO, LARGE_FACTOR))
            kinds += [(FOLLOW, ratio) for ratio in RATIOS]
            yield from (Setting(name, size.batch_size, *kind) for kind in kinds)


def runs(tasks: list[str]) -> list[Run]:
    """All runs of these workloads."""
    return [
        Run(setting, setting.size.learning_rate, seed)
        for setting in settings(tasks)
        for seed in SEEDS
    ]


def measures_worth(setting: Setting) -> bool:
    """Whether a run measures what uses are worth: a batch of example echoing mixes them."""
    return setting.method in ("batch", AUTO, FOLLOW) and setting.factor <= max(FACTORS)


def cost_ms(run: Run) -> float:
    """How long a run takes at most, in milliseconds of a core, for estimates alone."""
    measuring = 1.0
    if measures_worth(run.setting) and run.setting.method != FOLLOW:
        measuring += NUM_UNSEEN * STEPS_PER_LOSS / 2  # in every other window
    return measuring * run.cost_ms
