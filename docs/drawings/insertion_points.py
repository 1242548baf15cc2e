"""Draws docs/images/insertion_points.png: where data can be echoed, and what is repeated there."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

STAGES = [
    # x, name, what it does
    (0.0, "read", "storage, decoding:\nslow, once per\nfresh batch"),
    (2.3, "echo", "whole batches\nor single examples,\ne times"),
    (4.6, "shuffle buffer", "copies apart\nfrom each other"),
    (6.9, "augment=", "every copy anew,\non host threads"),
    (9.2, "transfer", "host memory\nto accelerator"),
    (11.5, "training step", "layers that augment,\nthen the model"),
]
INSERTION_POINTS = [
    # from which stage on, label, colour
    (2.3, 'before augmentation:  EchoingPyDataset(echo="batch" | "example", augment=…)', "#5e35b1"),
    (
        6.9,
        "after augmentation:  augment in the source itself, then EchoingPyDataset",
        "#00897b",
    ),
    (
        9.2,
        "on the accelerator:  augment in the model; each copy is still augmented anew",
        "#ef6c00",
    ),
]
WIDTH, HEIGHT = 1.8, 1.25


def draw() -> plt.Figure:
    """The stages in a row, and below each insertion point what runs once per copy."""
    figure, axes = plt.subplots(figsize=(12, 4.3))
    end = STAGES[-1][0] + WIDTH
    for x, name, what in STAGES:
        colour = "#ede7f6" if name in ("echo", "shuffle buffer") else "#f5f5f5"
        axes.add_patch(
            FancyBboxPatch((x, 0), WIDTH, HEIGHT, boxstyle="round,pad=0.1", fc=colour, ec="#424242")
        )
        middle = x + WIDTH / 2
        axes.text(
            middle, HEIGHT - 0.05, name, ha="center", va="top", fontweight="bold", fontsize=11
        )
        axes.text(middle, 0.78, what, ha="center", va="top", fontsize=8.5, color="#424242")
        if x + WIDTH < end:
            axes.add_patch(
                FancyArrowPatch(
                    (x + WIDTH + 0.1, HEIGHT / 2), (x + 2.2, HEIGHT / 2), arrowstyle="-|>",
                    mutation_scale=12, color="#424242",
                )
            )  # fmt: skip
    return figure
