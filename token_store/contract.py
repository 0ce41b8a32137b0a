"""Contract of the token store.  One conformance suite runs over every implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from token_store.entities import (
    Correction,
    CorrectionMask,
    ImageRecord,
    Job,
    NewCorrection,
    Scope,
    ServedPrediction,
    TokenVersion,
)
from token_store.following_contract import Following
from token_store.registry_contract import Registry


class StoreError(Exception):
    """The store cannot do what was asked; one sentence for the user."""


class NotFoundError(StoreError):
    """No such token, version, correction or job."""


class InvalidValueError(StoreError):
    """A value handed to the store is refused: unknown state, not JSON, no timezone, a mask of the wrong type."""


class InvalidTokenError(InvalidValueError):
    """An embedding or its metadata is refused: wrong shape, NaN, infinite, tampered bytes."""


class ConflictError(StoreError):
    """What the caller judged by has changed since: look again.  Nothing was written."""


class NothingBeforeError(StoreError):
    """There is nothing to take back."""


class StoreFullError(StoreError):
    """The disk (or quota) is full; nothing was written."""


class StoreVersionError(StoreError):
    """The database's schema is older or newer than this program; the message says what to type."""


@runtime_checkable
class TokenStore(Registry, Following, Protocol):
    """Tokens, versions, aliases, corrections, images, jobs, served predictions.

    Every method is one transaction: it has happened wholly (and, on SQLite with ``synchronous=FULL``, survives a power
    cut) when it returns, or not at all when it raises.  Thread-safe; safe with several processes on one database.
    Any method may raise :class:`StoreFullError`.  Times are timezone-aware UTC.
    """

    # -- tokens: see Registry for the rest --------------------------------------------------------------------------
    def get_version(self, scope: Scope, class_name: str, version: int | str) -> TokenVersion:
        """By number or alias (``"active"``).

        Raises:
            NotFoundError: no such version.
            InvalidTokenError: the stored bytes fail their sha256.
        """

    def find_active(self, scope: Scope, class_names: Sequence[str]) -> dict[str, TokenVersion]:
        """Active versions of the named classes in ``scope``, else in the global scope.

        Classes without one are absent.  Raises InvalidTokenError as :meth:`get_version` does.
        """

    # -- corrections ----------------------------------------------------------------------------------------------
    def add_correction(
        self, new: NewCorrection, *, job_kind: str | None = "learn", review_kind: str | None = None
    ) -> tuple[Correction, Job | None, bool]:
        """Store a correction and, unless ``job_kind`` is None or it teaches nothing, its job: one transaction.

        Returns (correction, job, fresh): ``fresh`` is False when the same (scope, annotation, updated_at) was already
        stored; then nothing was written and the existing ones are returned.  An older correction of the same
        annotation becomes ``retracted``: the newer text of a human replaces it, and its job, if still queued, becomes
        ``cancelled``.  When the older one arrives late, it is the one that is stored as ``retracted``, without a job.
        The job's payload is ``{"correction_id", "connection", "project", "task_id", "labels"}``.  With ``review_kind``
        labels that the replaced correction had taught and the new one does not get a job as
        :meth:`retract_corrections` says.
        """

    def get_correction(self, correction_id: int) -> Correction: ...

    def list_corrections(
        self, scope: Scope, *, label: str | None = None, states: Sequence[str] = (), limit: int = 1000
    ) -> list[Correction]:
        """Newest first."""

    def retract_corrections(
        self, scope: Scope, annotation_ids: Sequence[str], *, note: str, job_kind: str | None = None
    ) -> list[Correction]:
        """Mark as ``retracted`` (annotation or task deleted), cancel their queued jobs; returns those that changed.

        With ``job_kind`` a job ``{"connection", "project", "label"}`` is queued in the same transaction for each label
        that one of them had taught, so that the class is judged again without it; a label already queued gets no other.
        """

    def set_correction_state(
        self, correction_id: int, state: str, *, note: str = "", image_sha256: str | None = None
    ) -> None:
        """``image_sha256`` None keeps the stored one.

        ``retracted`` is final: a worker that ends after its correction was retracted changes neither state nor note.
        """

    def put_correction_masks(self, masks: Sequence[CorrectionMask]) -> None:
        """Store decoded masks (replacing those of the same correction and label)."""

    def correction_masks(self, correction_ids: Sequence[int], label: str | None = None) -> list[CorrectionMask]: ...

    # -- images ---------------------------------------------------------------------------------------------------
    def put_image(self, image: ImageRecord) -> None:
        """Insert, or keep what is there; only ``origin="generated"`` replaces a record of another origin."""

    def get_image(self, sha256: str) -> ImageRecord | None: ...

    # -- jobs -----------------------------------------------------------------------------------------------------
    def add_job(self, kind: str, payload: Mapping[str, Any], *, run_after: datetime | None = None) -> Job: ...

    def claim_job(self, worker: str, kinds: Sequence[str] = ()) -> Job | None:
        """Take the oldest due queued job and mark it running; no two workers get the same one."""

    def update_job(self, job_id: int, *, progress: float | None = None, message: str | None = None) -> None:
        """Tell how far a running job is; a job that is not running is left as it is."""

    def finish_job(self, job_id: int, *, state: str, message: str = "", result: Mapping[str, Any] | None = None) -> Job:
        """End a running job as done, failed or cancelled; a queued one may be cancelled.  Else raises StoreError."""

    def retry_job(self, job_id: int, *, run_after: datetime, message: str) -> Job:
        """Put a running job back to queued, due at ``run_after``."""

    def requeue_interrupted(self, worker: str | None = None) -> list[Job]:
        """At start: jobs left ``running`` by a dead process (of ``worker``, or any) become queued again."""

    def get_job(self, job_id: int) -> Job: ...

    def list_jobs(self, *, states: Sequence[str] = (), kinds: Sequence[str] = (), limit: int = 100) -> list[Job]:
        """Newest first."""

    # -- predictions ----------------------------------------------------------------------------------------------
    def put_served(self, served: Sequence[ServedPrediction]) -> None:
        """Remember; a prediction of the same task and model version replaces the one before."""

    def last_served(self, scope: Scope, task_id: str) -> ServedPrediction | None:
        """The newest by ``created_at``."""

    # -- housekeeping -----------------------------------------------------------------------------------------------
    def check(self, *, quick: bool = False) -> list[str]:
        """What is wrong, in one sentence each: durability settings, schema, damaged data; empty when all is well.

        Args:
            quick: settings and schema only (milliseconds, for each start).  Otherwise every embedding and mask is read
                and compared with its sha256.
        """

    def close(self) -> None: ...
