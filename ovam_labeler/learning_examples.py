"""Gathers what a class is learned from: captures and decoded truths of its recent corrections."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from backends.contract import Capture, Needs, TokenExample
from ovam_labeler.disagreements import DECIDED, Disagreement, compare, disputed
from ovam_labeler.errors import BadImageError, FetchError, OvamError
from ovam_labeler.inference import InferenceService
from ovam_labeler.services import CorrectionDecoder
from token_store.contract import TokenStore
from token_store.entities import Correction, CorrectionMask, Scope

log = logging.getLogger(__name__)

#: Most corrections of each kind a token is learned from, newest first.
MAX_POSITIVES = 8
MAX_NEGATIVES = 4

#: Weight of a negative's pixels against a positive's: it says where the class is not, in a whole picture at once.
NEGATIVE_WEIGHT = 0.25

#: Truths are kept on at most this many pixels a side: maps are coarser, memory is bounded.
_SIDE = 512


@dataclass(frozen=True, slots=True)
class Lesson:
    """One correction of a class, ready to learn from.

    Attributes:
        target: (h, w) float32 in 0..1, share of each pixel that is the class; at most 512 a side.
        weight: (h, w) float32, 0 where nothing is known.
    """

    correction_id: int
    positive: bool
    capture: Capture
    target: np.ndarray
    weight: np.ndarray

    def example(self) -> TokenExample:
        return TokenExample(self.capture, self.target, self.weight)

    def has_background(self) -> bool:
        return bool(((self.target < 0.5) & (self.weight > 0)).any())


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a class is learned from, and the corrections that are held back, by id."""

    lessons: list[Lesson]
    held: Mapping[int, Disagreement]

    @property
    def teaches(self) -> bool:
        return any(lesson.positive for lesson in self.lessons)


class Lessons:
    """Finds lessons in the store; captures come from the cache, else the image is fetched and read again."""

    def __init__(
        self, store: TokenStore, inference: InferenceService, decoders: Mapping[str, CorrectionDecoder]
    ) -> None:
        self._store = store
        self._inference = inference
        self._decoders = decoders

    def decoder_of(self, correction: Correction) -> CorrectionDecoder:
        """Raises OvamError: the correction came from a tool that is not installed."""
        tool = str(correction.payload.get("tool", ""))
        if tool not in self._decoders:
            known = ", ".join(sorted(self._decoders)) or "none"
            raise OvamError(
                f"Correction {correction.id} came from the tool {tool!r}, which is not installed ({known} are)."
            )
        return self._decoders[tool]

    def of_class(
        self,
        scope: Scope,
        label: str,
        needs: Needs,
        current: Correction | None = None,
        capture: Capture | None = None,
    ) -> Gathered:
        """The class's lessons, ``current`` (of which ``capture`` is) first, then newest first; positives before negatives.

        Other corrections whose image cannot be had any more are left out, and so are those on which annotators disagree.
        """
        stored = [
            c
            for c in self._store.list_corrections(scope, label=label, states=("pending", "learned"))
            if current is None or c.id != current.id
        ]
        by_id = {c.id: c for c in ([] if current is None else [current]) + stored}
        masks = self._store.correction_masks(list(by_id), label)
        held = disputed(compare(list(by_id.values()), masks, self._store.get_note(scope, DECIDED)))
        masks = [m for m in masks if m.correction_id not in held]
        chosen = [m for m in masks if m.kind == "positive"][:MAX_POSITIVES]
        chosen += [m for m in masks if m.kind == "negative"][:MAX_NEGATIVES]
        lessons = []
        for mask in chosen:
            correction = by_id[mask.correction_id]
            try:
                is_current = current is not None and correction.id == current.id
                found = capture if is_current and capture is not None else self.capture_of(correction, needs)
            except (FetchError, BadImageError) as error:
                log.warning("Correction %d is left out of learning '%s': %s", correction.id, label, error)
                continue
            lessons.append(_lesson(mask, found))
        return Gathered(lessons, held)

    def capture_of(self, correction: Correction, needs: Needs) -> Capture:
        """From the cache by the image's identity, else read again."""
        if correction.image_sha256:
            record = self._store.get_image(correction.image_sha256)
            # A received image's record holds its task's prompt, which is part of the cache key.
            prompt = record.prompt if record is not None and record.origin == "received" else ""
            if (capture := self._inference.cached(correction.image_sha256, needs, prompt=prompt)) is not None:
                return capture
        image, prompt = self.decoder_of(correction).image_of(correction)
        return self._inference.submit(image, needs, prompt=prompt).result()


def _lesson(mask: CorrectionMask, capture: Capture) -> Lesson:
    positive = mask.kind == "positive"
    known = ~mask.ignore
    weight = _shrunk(known)
    # Of a shrunk pixel only the known part counts, for the target as for the weight.
    target = _shrunk(mask.mask & known) / np.maximum(weight, 1e-6)
    return Lesson(
        mask.correction_id,
        positive,
        capture,
        target.clip(0, 1).astype(np.float32),
        weight * np.float32(1.0 if positive else NEGATIVE_WEIGHT),
    )


def _shrunk(mask: np.ndarray) -> np.ndarray:
    """(h, w) float32 area means of a bool (H, W), at most :data:`_SIDE` a side, same aspect."""
    height, width = mask.shape
    scale = _SIDE / max(height, width)
    values = torch.from_numpy(mask.astype(np.float32))[None, None]
    if scale < 1:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        values = torch.nn.functional.interpolate(values, size=size, mode="area")
    return values[0, 0].numpy()
