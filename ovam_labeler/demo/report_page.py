"""Writes ``index.html``: one file, readable without a network, with the masks before and after side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image

from ovam_labeler.demo.pictures import curve_points, data_url, overlay
from ovam_labeler.evaluation.measure import SHOWN
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
            shown = measurement.kinds[kind].shown.get(name) if kind in measurement.kinds else None
            threshold = row["thresholds"].get(kind)
            if shown is None or threshold is None or i >= len(shown):
                continue
            mask = shown[i].astype(np.float32) >= threshold
            score = float((mask & scene.truth).sum() / max((mask | scene.truth).sum(), 1))
            tiles.append(
                {
                    "caption": f"{style}, {caption}",
                    "url": data_url(overlay(scene.image, mask, scene.truth)),
                    "score": score,
                }
            )
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
