"""Draws a run of `fit()` through an outage, on the emulated accelerator.

    KERAS_BACKEND=jax python benchmarks/draw_outage.py

It writes `docs/benchmarks/outage.json` and, from that, `docs/images/outage.png`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

from workload import ENVIRONMENT, write_json

DOCS = Path(__file__).resolve().parents[1] / "docs"
STEP_SECONDS, RATIO, NUM_STEPS = 0.02, 2.0, 200
OUTAGE_SECONDS, INDEX_OF_OUTAGE = 1.2, 45
MAX_FACTOR = 64.0
STEP_COLOUR, FACTOR_COLOUR, OUTAGE_COLOUR = "#673ab7", "#e0802f", "#eeeeee"


def recorded() -> dict:
    """When each step began, how often its batch had been used by then, and the factor."""
    import keras
    from emulated import Accelerator, SleepingSource, outage

    import keras_echo

    device = Accelerator(STEP_SECONDS)
    device.in_memory_seconds()  # compiles
    step_seconds = device.in_memory_seconds()
    source = SleepingSource(outage(RATIO * step_seconds, OUTAGE_SECONDS, INDEX_OF_OUTAGE))
    with keras_echo.EchoingPyDataset(source, steps_per_epoch=NUM_STEPS, shuffle=False) as dataset:
        callback = keras_echo.DataEchoCallback(dataset, verbose=0, max_factor=MAX_FACTOR)
        steps = device.train(dataset, callbacks=[callback])
    num_uses: Counter[float] = Counter()
    uses = []
    for step in steps:
        num_uses[step.x[0, 0]] += 1
        uses.append(num_uses[step.x[0, 0]])
    begin = steps[0].seconds
    outage_begin, outage_end = source.reads[INDEX_OF_OUTAGE]
    return {
        "backend": keras.backend.backend(),
        "step_seconds": step_seconds,
        "seconds": [step.seconds - begin for step in steps],
        "uses": uses,
        "outage": [outage_begin - begin, outage_end - begin],
        "factors": [[0, 1.0], *([one.step, one.factor] for one in callback.decisions)],
    }


def draw(run: dict, path: Path) -> None:
    """Draws steps done above, uses and the factor below, over the same seconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.8), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    seconds, (begin, end) = run["seconds"], run["outage"]
    for axes in (above, below):
        axes.axvspan(begin, end, color=OUTAGE_COLOUR, linewidth=0)
        axes.spines[["top", "right"]].set_visible(False)
    above.plot(seconds, range(len(seconds)), color=STEP_COLOUR, linewidth=2)
    above.text((begin + end) / 2, len(seconds) * 0.06, "nothing to read", ha="center")
    above.set_ylabel("steps done")
    above.set_ylim(0, len(seconds))
    figure.suptitle(f"Nothing to read for {OUTAGE_SECONDS} seconds, and training goes on")
    above.set_title(
        f"emulated accelerator on {run['backend']}: R = {RATIO:g}, "
        f"steps of {1e3 * STEP_SECONDS:.0f} ms, max_factor={MAX_FACTOR:g}",
        fontsize=9,
    )
    below.plot(
        seconds,
        run["uses"],
        ".",
        color=STEP_COLOUR,
        markersize=4,
        label="uses of the batch so far",
    )
    changes, factors = zip(*run["factors"], [len(seconds) - 1, run["factors"][-1][1]], strict=True)
    below.step(
        [seconds[change] for change in changes],
        factors,
        where="post",
        color=FACTOR_COLOUR,
        linewidth=2,
        label="echo factor",
    )
    below.set_ylabel("uses")
    below.set_ylim(0)
    below.set_xlim(0, seconds[-1])
    below.set_xlabel("seconds")
    below.legend(loc="upper left", bbox_to_anchor=(0.08, 1.05), frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Records and draws."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    raw = DOCS / "benchmarks" / "outage.json"
    write_json(raw, recorded())
    draw(json.loads(raw.read_text()), DOCS / "images" / "outage.png")
    os._exit(0)  # TensorFlow may hang in the interpreter's shutdown


if __name__ == "__main__":
    main()
