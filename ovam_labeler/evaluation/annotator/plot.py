"""Seconds a mask over the stream of pictures, one line a way of labeling."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ovam_labeler.evaluation.annotator.edit_time import Pace
from ovam_labeler.evaluation.annotator.figures import LOOP, NOTHING, STEP, WORDS, Run, curve

_COLOURS = {NOTHING: "#6b7280", WORDS: "#b45309", LOOP: "#1d4ed8"}


def draw(runs: Sequence[Run], pace: Pace, target: Path) -> None:
    """Write the plot: mean over seeds, and a band from the least to the most.  The format is the file's suffix."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.6, 3.8), dpi=150)
    for way, colour in _COLOURS.items():
        points = np.array(curve(runs, way, pace))
        at = STEP / 2 + STEP * np.arange(len(points))
        axes.fill_between(at, points.min(axis=1), points.max(axis=1), color=colour, alpha=0.13, linewidth=0)
        axes.plot(at, points.mean(axis=1), color=colour, marker="o", markersize=4, label=way)
    axes.set_xlabel(f"pictures labeled (points: {STEP} pictures each)")
    axes.set_ylabel("annotator-seconds a mask")
    axes.set_xlim(0, STEP * len(points))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower left", ncols=3, fontsize=8.5)
    axes.set_title(f"{len(runs)} seeds: mean, and from the least to the most", fontsize=9.5)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    pyplot.close(figure)
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(buffer) as image:
        image.convert("RGB").save(target, quality=90, method=6)
