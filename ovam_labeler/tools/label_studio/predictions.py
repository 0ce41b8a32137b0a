"""Writes proposals as a Label Studio prediction, in the forms that the label config has."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovam_labeler.domain import ProjectOptions, Proposal
from ovam_labeler.errors import BadMaskError
from ovam_labeler.tools.contract import ParsedConfig
from ovam_labeler.tools.label_studio.label_config import control_of
from ovam_labeler.tools.label_studio.regions import RegionOptions, WrittenRegion, entries, write_regions
from ovam_labeler.tools.label_studio.task_images import TaskImage

#: Most regions of one prediction: each carries a picture-sized mask, and Label Studio sends all of them back with the task.
MAX_REGIONS = 200


def is_among(stored: Sequence[Mapping[str, Any]], version: str) -> bool:
    """Whether one of the predictions that Label Studio holds for a task is of this version."""
    return any(found.get("model_version") == version for found in stored)


def write_prediction(
    proposals: Sequence[Proposal],
    config: ParsedConfig,
    image_size: tuple[int, int],
    version: str,
    *,
    task_id: str = "",
    options: ProjectOptions | None = None,
) -> dict[str, Any]:
    """One task's prediction on its first picture; see :func:`write_image` and :func:`prediction`."""
    name = config.images[0].name if config.images else config.to_name
    image = TaskImage(name, 0 if config.images and config.images[0].many else None, "", True)
    written = write_image(proposals, config, image, image_size, version, task_id=task_id, options=options)
    return prediction([(proposals, written)], version)


def write_image(
    proposals: Sequence[Proposal],
    config: ParsedConfig,
    image: TaskImage,
    image_size: tuple[int, int],
    version: str,
    *,
    task_id: str = "",
    options: ProjectOptions | None = None,
) -> list[dict[str, Any]]:
    """The regions on one picture of a task.

    Args:
        proposals: one a label; those judged absent, or with an empty mask, give no region.
        image_size: (height, width) of the upright image, which every mask must have: the editor silently shows
            nothing of a mask of another size.
        version, task_id: make region ids unique.

    Raises:
        BadMaskError: a mask of another size than the image.
    """
    height, width = image_size
    how = _region_options(options or ProjectOptions())
    result: list[dict[str, Any]] = []
    for proposal in proposals:
        if proposal.mask.shape != (height, width):
            raise BadMaskError(
                f"The mask of '{proposal.label}' has the size {proposal.mask.shape}; the image has {(height, width)}."
            )
        control = control_of(config, image.name, proposal.label)
        if control is None or not proposal.present:
            continue
        regions = write_regions(proposal.mask, control.form, how)
        for region, score in zip(regions, region_scores(proposal, regions), strict=True):
            name = region_id(task_id, version, proposal.label, region.value, image.suffix)
            result += entries(region, control, proposal.label, name, score, image.item)
    return result


def prediction(pictures: Sequence[tuple[Sequence[Proposal], list[dict[str, Any]]]], version: str) -> dict[str, Any]:
    """``{"model_version", "score", "result"}`` of a task's pictures; ``result`` may be empty.

    Args:
        pictures: proposals and written regions of each.
        version: the project's model version; never empty, since one null loses Label Studio's whole batch.
    """
    result = [entry for _, regions in pictures for entry in regions]
    ids = list(dict.fromkeys(entry["id"] for entry in result))
    kept = set(ids[:MAX_REGIONS])
    return {
        "model_version": version,
        "score": min((overall_score(proposals) for proposals, _ in pictures), default=0.0),
        "result": [entry for entry in result if entry["id"] in kept],
    }


def overall_score(proposals: Sequence[Proposal]) -> float:
    """The least score of the classes drawn, or of all when none is: what uncertainty ordering sorts by.  0..1."""
    drawn = [p for p in proposals if p.present and p.mask.any()] or list(proposals)
    return min((bounded(p.score) for p in drawn), default=0.0)


def region_scores(proposal: Proposal, regions: Sequence[WrittenRegion]) -> list[float]:
    """A score 0..1 for each region of a label.

    One region has the label's score.  Of several objects, one on which the map is weaker than on the strongest has
    less, in proportion.
    """
    score = bounded(proposal.score)
    if len(regions) < 2:
        return [score] * len(regions)
    height, width = proposal.mask.shape
    rows, columns = proposal.soft.shape
    means = []
    for region in regions:
        y, x = np.nonzero(region.mask)
        means.append(float(proposal.soft[y * rows // height, x * columns // width].mean()))
    best = max(means)
    return [bounded(score * mean / best) if best > 0 else score for mean in means]


def bounded(score: float) -> float:
    """A score as Label Studio takes it: a finite float in 0..1; what is no number counts as full doubt."""
    return min(max(float(score), 0.0), 1.0) if math.isfinite(score) else 0.0


def region_id(task_id: str, version: str, label: str, value: Mapping[str, Any], suffix: str = "") -> str:
    """Region id from the content: the same prediction made twice has the same ids, another version has others.

    So a correction shows by its surviving ids which prediction the annotator saw.  A region on another than the task's
    first picture ends in that picture's mark (:func:`picture_mark`).
    """
    digest = hashlib.sha256()
    for part in (task_id, version, label):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    digest.update(bytes(value["rle"]) if "rle" in value else json.dumps(value, sort_keys=True).encode())
    return digest.hexdigest()[:24] + picture_mark(suffix)


def picture_mark(suffix: str) -> str:
    """How ids end on a picture of this :attr:`TaskImage.suffix`; empty for the first.

    Served regions are remembered by id alone; the mark tells on which picture one was deleted.
    """
    return "-" + hashlib.sha256(suffix.encode()).hexdigest()[:6] if suffix else ""


def regions_of(prediction: Mapping[str, Any], config: ParsedConfig) -> dict[str, str]:
    """Region id -> label of a written prediction: what is remembered to see later which were deleted."""
    found: dict[str, str] = {}
    for entry in prediction["result"]:
        for label in entry["value"].get(entry["type"], ()):
            found[entry["id"]] = label
    return found


def form_mark(config: ParsedConfig) -> str:
    """What a model version ends in where masks are not written as one brush control's regions on one picture.

    A prediction in another form is another version: else Label Studio would not ask for it after the config was changed.
    """
    forms = [[c.name, c.to_name, c.form, c.labels_name, [x.name for x in c.labels]] for c in config.controls]
    fields = [[field.name, field.key, field.many] for field in config.images]
    if len(forms) == len(fields) == 1 and forms[0][2] == "brushlabels" and not config.images[0].many:
        return ""
    return "-" + hashlib.sha256(json.dumps([forms, fields]).encode()).hexdigest()[:8]


def _region_options(options: ProjectOptions) -> RegionOptions:
    return RegionOptions(options.regions, options.max_regions, options.polygon_points)
