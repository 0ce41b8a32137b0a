"""Plain data of the application: images, labels, project options, proposals, truths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from token_store.entities import Scope


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image ready for reading.

    Attributes:
        pixels: uint8 (height, width, 3) sRGB, EXIF-upright, alpha composited on white, 16-bit scaled to 8.
        sha256: hex over the *file's bytes* as they came; identity of the image everywhere.
    """

    pixels: np.ndarray
    sha256: str

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])


@dataclass(frozen=True, slots=True)
class Label:
    """A label of a project.  ``name`` is the tool's text, verbatim; ``prompt`` an attribution prompt or alias if set."""

    name: str
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class ProjectOptions:
    """What shapes a project's masks besides its tokens.  Part of the model version.

    Attributes:
        overlap: ``"exclusive"`` or ``"independent"``.
        exhaustive: None = the rest of the picture is background for a label that was corrected in the task;
            True / False says it for every label.
        threshold: relative threshold 0..1 that replaces the backend's calibrated one; None = calibrated.
        presence: whether absent classes are left out.
        words, learning: whether unlearned labels are proposed by their words; whether corrections teach.
        policy: what becomes of a new token: ``"auto"`` = it is used, ``"gate"`` = used where the evidence is for it,
            ``"manual"`` = it waits under the alias ``candidate`` for a human.
        regions: one region a ``"class"``, or one for each connected ``"object"``; polygons are always one an object.
        push: open tasks that are predicted again and pushed when a token lands; 0 = none.
        max_regions, polygon_points: regions of one label, and points of one polygon, at most.
        tiles: parts along the longer side that a picture is also read in, for small objects; 1 = whole only.
        classes: labels that are proposed and learned; None = all.  The others are left to the annotator: nothing of them
            is proposed, and what is drawn of them is stored and teaches once they are listed.
    """

    method: str = "ovam"
    refiner: str = "none"
    overlap: Literal["exclusive", "independent"] = "exclusive"
    exhaustive: bool | None = None
    threshold: float | None = None
    presence: bool = True
    words: bool = True
    learning: bool = True
    policy: Literal["auto", "gate", "manual"] = "gate"
    regions: Literal["class", "object"] = "class"
    push: int = 10
    max_regions: int = 50
    polygon_points: int = 80
    tiles: int = 1
    classes: tuple[str, ...] | None = None

    def wants(self, label: str) -> bool:
        """Whether a label is proposed and learned."""
        return self.classes is None or label in self.classes


@dataclass(frozen=True, slots=True)
class Proposal:
    """A mask proposed for one label of one image.

    Attributes:
        mask: bool (H, W) at the image's own size; all False when the class is judged absent.
        soft: float32 (h, w) heat map in 0..1 at map resolution, mean over steps, heads and layers.
        score: 0..1, low = the model doubts (used for uncertainty ordering).
        presence: probability 0..1 that the class is in the image; 1.0 when the judgement was skipped.
        source: ``"token"`` or ``"word"``; ``token_version`` is the version number used, or None;
            ``version_id`` is the store's id of that version.
    """

    label: str
    mask: np.ndarray
    soft: np.ndarray
    score: float
    present: bool
    presence: float
    source: Literal["token", "word"]
    token_version: int | None = None
    version_id: int | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """What a correction says of one label (design: Truth).

    Attributes:
        kind: ``"positive"`` or ``"negative"`` (all regions of the label were deleted: it is not here).
        mask: bool (H, W): union of the label's regions whatever their origin; all False when negative.
        ignore: bool (H, W): border ring and unknown pixels, which count for nothing.
    """

    label: str
    kind: Literal["positive", "negative"]
    mask: np.ndarray
    ignore: np.ndarray


@dataclass(frozen=True, slots=True)
class LearnResult:
    """Outcome of learning one class.

    Attributes:
        version: number of the new token version, or of the one that was withdrawn.
        active: whether it became active; ``reason`` says why or why not in one sentence.
        moved: whether predictions of the class may use something else now: this version, an earlier one, or the word.
        metrics: ``train_iou``, ``losses``, ``seconds``, ``examples``, and ``word_iou`` / held-out figures if measured.
    """

    scope: Scope
    label: str
    version: int
    active: bool
    reason: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    moved: bool = False
