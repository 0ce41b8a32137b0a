"""Measures how right a proposal was: IoU of the prediction an annotator worked on with what was submitted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ovam_labeler.domain import LearnResult
from ovam_labeler.errors import OvamError
from ovam_labeler.helping import review
from ovam_labeler.services import Application
from ovam_labeler.tools.label_studio.corrections import TOOL
from ovam_labeler.tools.label_studio.regions import read_regions, region_mask
from ovam_labeler.tools.label_studio.tool import LabelStudioTool
from token_store.entities import Correction, CorrectionMask, Job

log = logging.getLogger(__name__)


class Measurer:
    """Told after each learned correction, on the worker's thread; the prediction is read from Label Studio by its id."""

    def __init__(self, application: Application, tool: LabelStudioTool) -> None:
        self._store = application.store
        self._tool = tool

    def learned(self, job: Job, _results: Sequence[LearnResult]) -> None:
        number = job.payload.get("correction_id")
        correction = self._store.get_correction(number) if isinstance(number, int) else None
        if correction is None or correction.payload.get("tool") != TOOL:
            return
        annotation = correction.payload.get("annotation")
        parent = annotation.get("parent_prediction") if isinstance(annotation, Mapping) else None
        if not isinstance(parent, int) or not self._tool.connections.knows(correction.scope.connection):
            return
        try:
            self._measure(correction, self._tool.connections.client(correction.scope.connection).prediction(parent))
        except OvamError as error:
            log.info("Correction %d is not compared with its proposal: %s", correction.id, error)

    def _measure(self, correction: Correction, prediction: Mapping[str, Any]) -> None:
        scope = correction.scope
        known = {
            o.label: o
            for o in self._store.list_outcomes(scope)
            if o.annotation_id == correction.annotation_id and o.iou is None
        }
        regions, _ = read_regions(prediction.get("result"))
        measured = []
        for mask in self._store.correction_masks([correction.id]):
            if mask.label in known:
                proposed = [region_mask(r, *mask.mask.shape) for r in regions if r.label == mask.label]
                measured.append(replace(known[mask.label], iou=_iou(proposed, mask)))
        self._store.put_outcomes(measured)
        review(self._store, scope, measured, datetime.now(UTC).isoformat(timespec="seconds"))


def _iou(proposed: Sequence[np.ndarray], submitted: CorrectionMask) -> float:
    union = np.zeros(submitted.mask.shape, dtype=bool)
    for mask in proposed:
        union |= mask
    either = int((union | submitted.mask).sum())
    return int((union & submitted.mask).sum()) / either if either else 1.0
