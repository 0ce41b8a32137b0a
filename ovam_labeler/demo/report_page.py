"""Writes ``index.html``: one file, readable without a network, with the masks before and after side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image

from ovam_labeler.demo.pictures import curve_points, data_url, table
from ovam_labeler.drawing import overlay
from ovam_labeler.evaluation.measure import SHOWN
from ovam_labeler.evaluation.metrics import iou
from ovam_labeler.evaluation.play import Played

#: (kind of map, caption, whose threshold) of the tiles after the corrected scene.
_TILES = (("word", "before"), ("after", "after 1"), ("after3", "after 3"))


def write_page(
    path: Path, report: Mapping[str, Any], played: Played, generated: Sequence[tuple[str, Image.Image]] = ()
) -> None:
    """Write the page.

    Args:
        report: as :func:`ovam_labeler.evaluation.report.build_report` made it.
        generated: (caption, picture) of each generated image with its mask.
    """
    environment = Environment(
        loader=PackageLoader("ovam_labeler.demo", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["points"] = _points
    environment.filters["share"] = lambda v: "–" if v is None else f"{100 * v:.0f} %"
    environment.filters["plain"] = lambda v: "–" if v is None else f"{v:.2f}"
    page = environment.get_template("report_page.html").render(
        report=report,
        strips=[_strip(row, played) for row in report["concepts"]],
        generated=[{"caption": caption, "url": data_url(picture, 160)} for caption, picture in generated],
        captions=dict(_TILES),
        total=sum(report["timings"].values()),
    )
    path.write_text(page, encoding="utf-8")


def write_sheet(path: Path, report: Mapping[str, Any], played: Played) -> None:
    """Write the figure of all classes without a word: the corrected mask, then a picture in another style before and after.

    No row is chosen: every class of the run is there, with its first uncorrected picture in another style.
    """
    rows = []
    for row in report["concepts"]:
        if row["has_word"]:
            continue
        corrected = played.scenes.of(row["name"], "correction")[0]
        cells = [(overlay(corrected.image, corrected.truth, None, "truth"), "corrected")]
        tests = played.scenes.of(row["name"], "test")[:SHOWN]
        place = next((i for i, s in enumerate(tests) if not s.same_style), 0)
        for kind, caption in _TILES:
            if masks := _masks(played, row, kind):
                truth = tests[place].truth
                score = f"{caption}: IoU {100 * iou(masks[place], truth):.0f}"
                cells.append((overlay(tests[place].image, masks[place], truth), score))
        rows.append((row["name"], cells))
    table(["one mask", *(caption for _, caption in _TILES)], rows).save(path, optimize=True)


def _masks(played: Played, row: Mapping[str, Any], kind: str) -> list[np.ndarray]:
    """Kept maps of a concept at their threshold, bool (H, W); where the product uses the word, the word's."""
    if row["uses"].get(kind) == "word":
        kind = "own_word"
    found = played.measurement.kinds.get(kind)
    shown, threshold = found.shown.get(row["name"]) if found else None, row["thresholds"].get(kind)
    return [] if shown is None or threshold is None else [m.astype(np.float32) >= threshold for m in shown]


def _points(value: float | None) -> str:
    """IoU 0..1 as points with one digit."""
    return "–" if value is None else f"{100 * value:.1f}"


def _strip(row: Mapping[str, Any], played: Played) -> dict[str, Any]:
    """Tiles and loss curves of one concept."""
    name, measurement = row["name"], played.measurement
    corrected = played.scenes.of(name, "correction")[0]
    tiles: list[dict[str, Any]] = [
        {
            "caption": "the corrected mask",
            "url": data_url(overlay(corrected.image, corrected.truth, None, "truth")),
            "score": None,
        }
    ]
    for i, scene in enumerate(played.scenes.of(name, "test")[:SHOWN]):
        style = "same style" if scene.same_style else "another style"
        for kind, caption in _TILES:
            if masks := _masks(played, row, kind):
                picture = data_url(overlay(scene.image, masks[i], scene.truth))
                tiles.append({"caption": f"{style}, {caption}", "url": picture, "score": iou(masks[i], scene.truth)})
    curves = []
    for stage, found in measurement.learned.items():
        if name in found:
            metrics = found[name].version.metrics
            losses = list(metrics.get("losses", ()))
            curves.append(
                {
                    "stage": stage,
                    "points": curve_points(losses),
                    "first": losses[0] if losses else None,
                    "last": min(losses) if losses else None,
                    "seconds": metrics.get("seconds"),
                }
            )
    return {"row": row, "tiles": tiles, "curves": curves}
