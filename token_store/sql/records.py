"""Images and the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from token_store.contract import InvalidValueError
from token_store.entities import ImageRecord, Scope
from token_store.sql import values
from token_store.sql.session import SqlTransactions
from token_store.tables import AuditRow, ImageRow

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

    def audit(
        self,
        limit: int = 100,
        *,
        scope: Scope | None = None,
        class_name: str | None = None,
        before: int | None = None,
    ) -> list[Mapping[str, Any]]:
        """See :meth:`token_store.registry_contract.Registry.audit`."""
        query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
        if scope is not None:
            query = query.where(AuditRow.connection == scope.connection, AuditRow.project == scope.project)
        if class_name is not None:
            query = query.where(AuditRow.class_name == class_name)
        if before is not None:
            query = query.where(AuditRow.id < before)
        with self._read() as session:
            return [
                {"id": row.id, "at": row.at, "who": row.who, "what": row.what, "why": row.why, "details": row.details}
                for row in session.scalars(query)
            ]


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
