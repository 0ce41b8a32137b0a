"""What a click gains: ``python -m ovam_labeler.evaluation.clicks``.

Each object of composed validation scenes is asked for as smart tools ask: a point at its centre (its pixel farthest from
its border), a box about it.  IoU with the object's exact mask, beside the proposal that nobody clicked on, the same drawn
though judged absent, and the box itself filled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from ovam_labeler.domain import Label
from ovam_labeler.evaluation.judged_scenes import JudgedScenes, print_table
from ovam_labeler.evaluation.metrics import iou, paired_bootstrap
from ovam_labeler.masks.picking import Box, Point, pick

#: Ways to an object's mask, in the table's order.
WAYS = ("proposal", "drawn anyway", "point", "box", "box filled")


def centre(mask: np.ndarray) -> Point:
    """The pixel farthest from the mask's border: inside it also where the middle of its box is not."""
    padded = np.pad(mask.astype(np.uint8), 1)
    far = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = divmod(int(far.argmax()), mask.shape[1])
    return Point((column + 0.5) / mask.shape[1], (row + 0.5) / mask.shape[0])


def box_about(mask: np.ndarray) -> tuple[Box, np.ndarray]:
    """The smallest box that holds a mask, and its pixels."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    inside = np.zeros_like(mask)
    inside[top:bottom, left:right] = True
    height, width = mask.shape
    x0, x1, y0, y1 = left / width, right / width, top / height, bottom / height
    return Box(((x0, y0), (x1, y0), (x1, y1), (x0, y1))), inside


def measure(judged: JudgedScenes) -> list[dict[str, Any]]:
    """One row an object: its label, kind, and IoU by each of :data:`WAYS`."""
    rows = []
    # As the click service asks: the annotator says that the class is there, and one label takes nothing from another.
    asked = replace(judged.options, presence=False, overlap="independent")
    names = {c.name for c in judged.scenes.concepts}
    for scene in judged.tests:
        image = judged.probe.image(scene)
        offered = [Label(n) for n in judged.scenes.offered(scene)]
        served = {p.label: p for p in judged.app.proposer.propose(image, offered, judged.scope, judged.options)}
        for label, truth in scene.masks.items():
            if label not in names or label not in served:
                continue
            drawn = judged.app.proposer.propose(image, [Label(label)], judged.scope, asked)[0]
            box, inside = box_about(truth)
            masks = (
                served[label].mask,
                drawn.mask,
                pick(drawn.mask, drawn.soft, [centre(truth)], []),
                pick(drawn.mask, drawn.soft, [], [box]),
                inside,
            )
            found = {way: iou(mask, truth) for way, mask in zip(WAYS, masks, strict=True)}
            rows.append({"scene": scene.name, "label": label, "kind": judged.kind(label), **found})
    return rows


def table(rows: list[dict[str, Any]]) -> Mapping[str, Any]:
    """Mean IoU by way, all objects and by kind; what a point gains over the proposal, with its interval over objects."""
    found: dict[str, Any] = {}
    for kind in ("all", "word", "token"):
        chosen = [row for row in rows if kind in ("all", row["kind"])]
        if not chosen:
            continue
        found[kind] = {"objects": len(chosen), **{way: float(np.mean([r[way] for r in chosen])) for way in WAYS}}
        for way in ("point", "box"):
            gain = [row[way] - row["proposal"] for row in chosen]
            found[kind][f"{way} gains"] = [float(np.mean(gain)), *paired_bootstrap(gain)]
    return found


def main() -> None:
    print_table(__doc__, measure, table)


if __name__ == "__main__":
    main()
