"""``python -m benchmarks.ridge``: ridge, balance and thresholds of the compared fits, by IoU on held-out validation pictures."""

from __future__ import annotations

import json
import sys

import numpy as np

from backends.diffusion.tiny import SPEC
from benchmarks.heldout import FITS, SGD, Fit, curves, ours
from ovam_labeler.demo.scenes import Plan
from ovam_labeler.evaluation.metrics import BINS, best_threshold

RIDGES = (3e-4, 1e-3, 2e-3, 4e-3)
VALIDATION = Plan(novel=14, known=6, corrections=1, tests=4)


def main() -> int:
    fits = {"sgd500": SGD}
    for balance in (False, True):
        for ridge in RIDGES:
            name = f"ridge {ridge:g}, {'balanced weights' if balance else 'plain weights'}"
            fits[name] = Fit("exact", ours(ridge, balance))
    fits |= {f"chosen, {name}": fit for name, fit in FITS.items() if name not in ("sgd500", "exact")}
    found = curves(SPEC.load("embedded", "cpu", None), "val", VALIDATION, fits)
    rows = {}
    for name, some in found.items():
        at = best_threshold(some)
        rows[name] = {"iou": float(np.mean(some, axis=0)[at]), "threshold": at / BINS}
        print(f"{name:34s} {rows[name]['iou']:.4f} at {rows[name]['threshold']:.3f}")
    print(json.dumps({"pictures": len(found["sgd500"]), "fits": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
