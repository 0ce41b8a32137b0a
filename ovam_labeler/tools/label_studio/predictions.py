"""Writes proposals as a Label Studio prediction: brush regions at the image's own size."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ovam_labeler.domain import Proposal
from ovam_labeler.errors import BadMaskError
from ovam_labeler.tools.contract import ParsedConfig
from ovam_labeler.tools.label_studio.rle import encode_mask


def write_prediction(
    proposals: Sequence[Proposal], config: ParsedConfig, image_size: tuple[int, int], version: str, *, task_id: str = ""
) -> dict[str, Any]:
    """One task's prediction.

    Args:
        proposals: one a label; those judged absent, or with an empty mask, give no region.
        image_size: (height, width) of the upright image, which every mask must have: the editor silently shows
            nothing of a mask of another size.
        version: the project's model version; never empty, since one null loses Label Studio's whole batch.
        task_id: makes region ids unique to the task.

    Returns:
        ``{"model_version", "score", "result"}``; ``result`` may be empty.

    Raises:
        BadMaskError: a mask of another size than the image.
    """
    height, width = image_size
    regions = []
    for proposal in proposals:
        if proposal.mask.shape != (height, width):
            raise BadMaskError(
                f"The mask of '{proposal.label}' has the size {proposal.mask.shape}; the image has {(height, width)}."
            )
        if not proposal.present or not proposal.mask.any():
            continue
        rle = encode_mask(proposal.mask)
        regions.append(
            {
                "id": region_id(task_id, version, proposal.label, rle),
                "from_name": config.control,
                "to_name": config.to_name,
                "type": config.region,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "score": bounded(proposal.score),
                "value": {"format": "rle", "rle": rle, config.region: [proposal.label]},
            }
        )
    return {"model_version": version, "score": overall_score(proposals), "result": regions}


def overall_score(proposals: Sequence[Proposal]) -> float:
    """The least score of the classes drawn, or of all when none is: what uncertainty ordering sorts by.  0..1."""
    drawn = [p for p in proposals if p.present and p.mask.any()] or list(proposals)
    return min((bounded(p.score) for p in drawn), default=0.0)


def bounded(score: float) -> float:
    """A score as Label Studio takes it: a finite float in 0..1; what is no number counts as full doubt."""
    return min(max(float(score), 0.0), 1.0) if math.isfinite(score) else 0.0


def region_id(task_id: str, version: str, label: str, rle: Sequence[int]) -> str:
    """Region id from the content: the same prediction made twice has the same ids, another version has others.

    So a correction shows by its surviving ids which prediction the annotator saw.
    """
    digest = hashlib.sha256()
    for part in (task_id, version, label):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    digest.update(bytes(rle))
    return digest.hexdigest()[:24]


def regions_of(prediction: Mapping[str, Any], config: ParsedConfig) -> dict[str, str]:
    """Region id -> label of a written prediction: what is remembered to see later which were deleted."""
    return {region["id"]: region["value"][config.region][0] for region in prediction["result"]}
