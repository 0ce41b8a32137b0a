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
        parent_version: the version that was active when this one was made, None for the class's first.
        state: one of :data:`TOKEN_STATES`.
        provenance: where it came from when it was not learned here: ``{"kind": "imported", "licence": ..., ...}``;
            without personal data, JSON-serialisable.
    """

    fingerprint: Mapping[str, Any]
    embedding: np.ndarray
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Any]
    source_corrections: tuple[int, ...] = ()
    parent_version: int | None = None
    created_by: str = ""
    state: str = "unproven"
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TokenVersion:
    """A stored version.  ``number`` counts 1, 2, ... per token; ``sha256`` is over the embedding's safetensors bytes.

    ``id`` is unique over all tokens of the store; ``state_at`` is when ``state`` was last set.
    """

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
    tags: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    state_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class VersionHead:
    """What lists show of a version: no embedding is read for it.  Fields as of :class:`TokenVersion`."""

    id: int
    number: int
    state: str
    fingerprint: Mapping[str, Any]
    metrics: Mapping[str, Any]
    parent_version: int | None
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Token:
    """A class name in a scope.

    Attributes:
        versions: how many are stored.
        aliases: alias -> version number.
        active, newest: heads of the version that predictions use (None: the word) and of the newest one; they are
            filled by :meth:`token_store.contract.TokenStore.find_tokens` and ``get_token``, None from ``list_tokens``.
        updated_at: when a version was last added or changed, or an alias or tag moved.
    """

    scope: Scope
    class_name: str
    versions: int
    aliases: Mapping[str, int]
    created_at: datetime
    tags: Mapping[str, str] = field(default_factory=dict)
    updated_at: datetime | None = None
    active: VersionHead | None = None
    newest: VersionHead | None = None


#: Allowed values of :attr:`TokenFilter.order`.
TOKEN_ORDERS = ("name", "updated")


@dataclass(frozen=True, slots=True)
class TokenFilter:
    """Which tokens are wanted; every condition that is set must hold.

    Attributes:
        scope: exactly this scope; None = all.
        name_contains: part of the class name, case ignored.
        active: True = with, False = without an active version.
        state: state of the active version, or, where ``active`` is False, of the newest.
        space: fingerprint's embedding space of the active version, or, where ``active`` is False, of the newest.
        alias: carries this alias.
        tags: token's own tags that must be there; value None = any value.
        order: ``"name"`` (scope, then class name) or ``"updated"`` (newest first).
    """

    scope: Scope | None = None
    name_contains: str = ""
    active: bool | None = None
    state: str | None = None
    space: str | None = None
    alias: str | None = None
    tags: Mapping[str, str | None] = field(default_factory=dict)
    order: str = "name"


#: No condition: every token, by name.
ALL_TOKENS = TokenFilter()


@dataclass(frozen=True, slots=True)
class TokenPage:
    """A page of tokens; ``after`` is handed to the next call, None at the end."""

    tokens: tuple[Token, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class AliasChange:
    """An alias that moved: version numbers before and after, None = there was, or is, none."""

    scope: Scope
    class_name: str
    alias: str
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class Added:
    """A version of a bundle: ``fresh`` is False where the class had this very embedding already.

    Attributes:
        moved: the move of ``active`` it made; None where it was to make none.
    """

    version: TokenVersion
    fresh: bool
    moved: AliasChange | None = None


@dataclass(frozen=True, slots=True)
class StateChange:
    """A version's new state with the figures and the reason for it; ``metrics`` are merged into the stored ones."""

    version: int
    state: str
    why: str
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VersionRef:
    """Names a version without loading it."""

    scope: Scope
    class_name: str
    number: int


@dataclass(frozen=True, slots=True)
class Project:
    """A project the store knows, with the options set for it (see :mod:`ovam_labeler.options`)."""

    scope: Scope
    options: Mapping[str, Any]
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Garbage:
    """What collecting garbage removed, or would remove: versions, and how many served predictions."""

    versions: tuple[VersionRef, ...]
    served: int


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

    Attributes:
        regions: region id -> label; a correction is compared with it to see which regions were deleted.
        token_versions: label -> version number, for the labels that were asked for by a token.
        version_ids: every label asked for -> :attr:`TokenVersion.id`, None where its word was asked for; by it the tasks
            that a version touched are found.
    """

    scope: Scope
    task_id: str
    model_version: str
    regions: Mapping[str, str]
    token_versions: Mapping[str, int]
    created_at: datetime
    version_ids: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProposalOutcome:
    """What an annotation made of the proposal of one label.

    Attributes:
        model_version: of the prediction that the annotator worked on.
        token_version: number of the token version asked for; None = the word was.
        untouched, changed, deleted: regions of the proposal that were submitted as they were, edited, taken away.
        drawn: regions of the label drawn by hand.
        iou: of proposal and submission, 0..1; None while it has not been measured.
        lead_time: seconds spent on the annotation as a whole; None where the tool does not say.
        at: when the annotation was last changed.
    """

    scope: Scope
    annotation_id: str
    label: str
    task_id: str
    annotator: str
    model_version: str
    token_version: int | None
    untouched: int
    changed: int
    deleted: int
    drawn: int
    iou: float | None
    lead_time: float | None
    at: datetime

    @property
    def kept(self) -> bool:
        """Whether the proposal was submitted as it was."""
        return not (self.changed or self.deleted or self.drawn)


@dataclass(frozen=True, slots=True)
class KnownAnnotation:
    """The newest correction of an annotation, without its content."""

    annotation_id: str
    updated_at: str
    task_id: str
    annotator: str
    state: str
    correction_id: int
