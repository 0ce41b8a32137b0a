"""Images, served predictions, project options and the audit log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select

from token_store.contract import InvalidValueError
from token_store.entities import ImageRecord, Scope, ServedPrediction
from token_store.sql import values
from token_store.sql.session import SqlTransactions
from token_store.tables import AuditRow, ImageRow, ProjectRow, ServedRow

#: Origin of an image this program made and can make again.
GENERATED = "generated"


class SqlRecords(SqlTransactions):
    def put_image(self, image: ImageRecord) -> None:
        """Insert, or keep what is there; only a generated image's record replaces one of another origin."""
        row = _image_row(image)
        with self._write() as session:
            self._queue_up(session, "image", image.sha256)
            known = session.get(ImageRow, image.sha256)
            if known is None:
                session.add(row)
            elif known.origin != GENERATED and image.origin == GENERATED:
                row.created_at = known.created_at
                session.merge(row)

    def get_image(self, sha256: str) -> ImageRecord | None:
        """None for an unknown image."""
        with self._read() as session:
            row = session.get(ImageRow, sha256)
            return None if row is None else _image_entity(row)

    def put_served(self, served: Sequence[ServedPrediction]) -> None:
        """Remember predictions; one of the same task and model version replaces the one before."""
        rows = {(one.scope, one.task_id, one.model_version): _served_row(one) for one in served}
        with self._write() as session:
            for (scope, task_id, model_version), row in sorted(rows.items(), key=lambda item: item[0]):
                self._queue_up(session, "served", scope.connection, scope.project, task_id)
                session.execute(delete(ServedRow).where(*_of(scope, task_id), ServedRow.model_version == model_version))
                session.add(row)

    def last_served(self, scope: Scope, task_id: str) -> ServedPrediction | None:
        """The newest by ``created_at``, None when the task was never served."""
        newest = select(ServedRow).where(*_of(scope, task_id)).limit(1)
        with self._read() as session:
            row = session.scalar(newest.order_by(ServedRow.created_at.desc(), ServedRow.id.desc()))
            return None if row is None else _served_entity(row)

    def get_project_options(self, scope: Scope) -> dict[str, Any]:
        """Options last seen or set for a project ({} if none)."""
        with self._read() as session:
            row = session.get(ProjectRow, (scope.connection, scope.project))
            return {} if row is None else row.options

    def put_project_options(self, scope: Scope, options: Mapping[str, Any]) -> None:
        """Replace the project's options."""
        values.scope(scope)
        plain = values.mapping("options", options)
        with self._write() as session:
            self._queue_up(session, "project", scope.connection, scope.project)
            session.merge(
                ProjectRow(connection=scope.connection, project=scope.project, options=plain, updated_at=values.now())
            )

    def audit(self, limit: int = 100) -> list[Mapping[str, Any]]:
        """See :meth:`token_store.contract.TokenStore.audit`."""
        with self._read() as session:
            rows = session.scalars(select(AuditRow).order_by(AuditRow.id.desc()).limit(limit))
            return [
                {"at": row.at, "who": row.who, "what": row.what, "why": row.why, "details": row.details} for row in rows
            ]


def _of(scope: Scope, task_id: str) -> tuple[Any, ...]:
    return (
        ServedRow.connection == scope.connection,
        ServedRow.project == scope.project,
        ServedRow.task_id == task_id,
    )


def _image_row(image: ImageRecord) -> ImageRow:
    if image.width < 1 or image.height < 1:
        raise InvalidValueError(f"image size is {image.width} x {image.height}; at least 1 x 1 is needed.")
    return ImageRow(
        sha256=values.name("sha256", image.sha256),
        origin=values.name("origin", image.origin),
        width=image.width,
        height=image.height,
        prompt=values.text("prompt", image.prompt),
        negative_prompt=values.text("negative_prompt", image.negative_prompt),
        seed=None if image.seed is None else str(int(image.seed)),
        scheduler=values.text("scheduler", image.scheduler),
        guidance=image.guidance,
        steps=image.steps,
        model=values.text("model", image.model),
        extra=values.mapping("extra", image.extra),
        created_at=values.now(),
    )


def _image_entity(row: ImageRow) -> ImageRecord:
    return ImageRecord(
        sha256=row.sha256,
        origin=row.origin,
        width=row.width,
        height=row.height,
        prompt=row.prompt,
        negative_prompt=row.negative_prompt,
        seed=None if row.seed is None else int(row.seed),
        scheduler=row.scheduler,
        guidance=row.guidance,
        steps=row.steps,
        model=row.model,
        extra=row.extra,
    )


def _served_row(one: ServedPrediction) -> ServedRow:
    values.scope(one.scope)
    return ServedRow(
        connection=one.scope.connection,
        project=one.scope.project,
        task_id=values.name("task_id", one.task_id),
        model_version=values.name("model_version", one.model_version),
        regions=values.mapping("regions", one.regions),
        token_versions=values.mapping("token_versions", one.token_versions),
        created_at=values.moment("created_at", one.created_at),
    )


def _served_entity(row: ServedRow) -> ServedPrediction:
    return ServedPrediction(
        scope=Scope(row.connection, row.project),
        task_id=row.task_id,
        model_version=row.model_version,
        regions=row.regions,
        token_versions=row.token_versions,
        created_at=row.created_at,
    )
