"""Draws docs/images/insertion_points.png: where data can be echoed, and what is done anew there."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

STAGES = [
    ("read", "storage, decoding:\nslow"),
    ("augment", "in the source's\nown workers"),
    ("augment=", "on threads\nof the dataset"),
    ("transfer", "host memory to\nthe accelerator"),
    ("augment", "layers inside\nthe model"),
    ("train", "one optimizer\nstep"),
]
ECHOES = [
    # in front of which stage the copies begin, what it is called, colour
    (
        1.5,
        "A  before augmentation",
        'EchoingPyDataset(source, echo="example", augment=layer)',
        "#5e35b1",
    ),
    (1.5, "B  after augmentation", "EchoingPyDataset(augmented_source)", "#00897b"),
    (
        3.5,
        "C  on the accelerator",
        'EchoingPyDataset(source, placement="device"), layers in the model',
        "#ef6c00",
    ),
]
OMITTED = {"A": {1, 4}, "B": {2, 4}, "C": {1, 2}}  # stages that this way of echoing leaves out
LEGEND = "1: once per fresh batch      e: every time it is used      bar: the echo and its buffer"
STEP, WIDTH, HEIGHT = 2.3, 1.7, 1.1


def draw() -> plt.Figure:
    """The stages in a row; below, for each way to echo, what is done once and what every time."""
    figure, axes = plt.subplots(figsize=(12, 5.2))
    for place, (name, what) in enumerate(STAGES):
        left = place * STEP
        axes.add_patch(
            FancyBboxPatch((left, 0), WIDTH, HEIGHT, boxstyle="round,pad=0.1", fc="#f5f5f5")
        )
        axes.text(left + WIDTH / 2, 0.95, name, ha="center", va="center", fontweight="bold")
        axes.text(left + WIDTH / 2, 0.35, what, ha="center", va="center", fontsize=9)
        if place:
            ends = (left - STEP + WIDTH + 0.1, HEIGHT / 2), (left - 0.1, HEIGHT / 2)
            axes.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=12))
    for row, (begin, name, code, colour) in enumerate(ECHOES):
        y = -1.25 - 1.35 * row
        echo = begin * STEP + WIDTH / 2
        for place in range(len(STAGES)):
            if place in OMITTED[name[0]]:
                continue
            middle = place * STEP + WIDTH / 2
            again = middle > echo
            axes.plot(middle, y, "o", ms=15, mfc=colour if again else "white", mec=colour, mew=2)
            axes.text(
                middle,
                y,
                "e" if again else "1",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if again else colour,
            )
        axes.plot([echo, echo], [y - 0.28, y + 0.28], color=colour, lw=4)
        axes.text(-0.1, y + 0.42, name, color=colour, fontweight="bold", va="bottom")
        axes.text(
            STEP + 0.6, y + 0.42, code, color=colour, family="monospace", fontsize=9, va="bottom"
        )
    axes.text(
        -0.1,
        -5.0,
        LEGEND,
        fontsize=9,
    )
    axes.set(xlim=(-0.3, 5 * STEP + WIDTH + 0.3), ylim=(-5.2, 1.4))
    axes.axis("off")
    return figure


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "images" / "insertion_points.png"
    draw().savefig(target, dpi=110, bbox_inches="tight")
