"""Plain data that crosses the store's edge.  No ORM row ever leaves this room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

#: Scope of tokens that belong to no project.
GLOBAL_CONNECTION = "*"


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """Where a token counts: a project of a connection, or everywhere (``Scope.everywhere()``).

    ``connection`` names one labeling-tool instance (``"default"`` for the bare routes), ``project`` is the tool's own
    project id as text; a project id alone is ambiguous, since two Label Studios both have a project 1.
    """

    connection: str
    project: str

    @staticmethod
    def everywhere() -> Scope:
        return Scope(GLOBAL_CONNECTION, "")

    def __str__(self) -> str:
        return "global" if self.connection == GLOBAL_CONNECTION else f"{self.connection}/{self.project}"


#: Allowed values of :attr:`TokenVersion.state`.
TOKEN_STATES = ("unproven", "proven", "rejected", "archived")


@dataclass(frozen=True, slots=True)
class NewTokenVersion:
    """A version about to be stored.

    Attributes:
        fingerprint: ``{"space": hex, "model": str, "settings": {...}}`` of the embedding space it was learned in.
        embedding: (n, E) float32, n >= 2, finite.
        recipe: settings of the optimization.
        metrics: figures such as ``train_iou``, ``losses`` (list), ``seconds``; JSON-serialisable.
        source_corrections: ids of the corrections it was learned from.
        state: one of :data:`TOKEN_STATES`.
    """

    fingerprint: Mapping[str, Any]
    embedding: np.ndarray
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Any]
    source_corrections: tuple[int, ...] = ()
    parent_version: int | None = None
    created_by: str = ""
    state: str = "unproven"


@dataclass(frozen=True, slots=True)
class TokenVersion:
    """A stored version.  ``number`` counts 1, 2, ... per token; ``sha256`` is over the embedding's safetensors bytes."""

    id: int
    scope: Scope
    class_name: str
    number: int
    fingerprint: Mapping[str, Any]
    embedding: np.ndarray
    sha256: str
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Any]
    state: str
    source_corrections: tuple[int, ...]
    parent_version: int | None
    created_by: str
    created_at: datetime
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """A class name in a scope, with its number of versions and its aliases (alias -> version number)."""

    scope: Scope
    class_name: str
    versions: int
    aliases: Mapping[str, int]
    created_at: datetime


#: Allowed values of :attr:`Correction.state`.
CORRECTION_STATES = ("pending", "learned", "ignored", "failed", "retracted")


@dataclass(frozen=True, slots=True)
class NewCorrection:
    """A human's correction as it arrived; the raw annotation is kept, masks are decoded by the worker.

    Attributes:
        annotation_id, updated_at: unique together with the scope; a replayed event is recognised by them.
        image_ref: how the tool names the image (URL or path), never with credentials.
        payload: the tool's annotation, task data and label config, without secrets; JSON-serialisable.
        labels: labels this correction teaches (may be empty: then it teaches nothing and is stored as ``ignored``).
    """

    scope: Scope
    annotation_id: str
    updated_at: str
    task_id: str
    image_ref: str
    payload: Mapping[str, Any]
    labels: tuple[str, ...]
    annotator: str = ""


@dataclass(frozen=True, slots=True)
class Correction:
    id: int
    scope: Scope
    annotation_id: str
    updated_at: str
    task_id: str
    image_ref: str
    image_sha256: str | None
    payload: Mapping[str, Any]
    labels: tuple[str, ...]
    annotator: str
    state: str
    note: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CorrectionMask:
    """Decoded truth of one label of a correction.

    Attributes:
        kind: ``"positive"`` (the label's target), ``"negative"`` (deleted or emptied: the label is not here).
        mask: (H, W) bool at the image's own upright size; all False for a negative.
        ignore: (H, W) bool: pixels that count for nothing (border ring, unknown).
    """

    correction_id: int
    label: str
    kind: str
    mask: np.ndarray
    ignore: np.ndarray


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What is known of an image; an evicted capture of a generated one can be made again, exactly."""

    sha256: str
    origin: str
    width: int
    height: int
    prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None
    scheduler: str = ""
    guidance: float | None = None
    steps: int | None = None
    model: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


#: Allowed values of :attr:`Job.state`.
JOB_STATES = ("queued", "running", "done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Job:
    """Durable work.  ``kind`` is learn, read, generate, repredict, ...; ``payload`` is small JSON (ids, never masks).

    ``progress`` is 0..1 with ``message``; ``attempts`` counts starts; ``run_after`` schedules a retry.
    """

    id: int
    kind: str
    payload: Mapping[str, Any]
    state: str
    attempts: int
    progress: float
    message: str
    result: Mapping[str, Any]
    created_at: datetime
    run_after: datetime
    started_at: datetime | None
    finished_at: datetime | None
    worker: str


@dataclass(frozen=True, slots=True)
class ServedPrediction:
    """A prediction we gave to a tool: which regions of which label, under which model version.

    ``regions`` maps region id -> label; a correction is compared with it to see which regions were deleted.
    """

    scope: Scope
    task_id: str
    model_version: str
    regions: Mapping[str, str]
    token_versions: Mapping[str, int]
    created_at: datetime
