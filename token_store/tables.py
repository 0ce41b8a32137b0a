"""SQL tables of the token store.  Rows stay inside this room; :mod:`token_store.entities` cross its edge.

Every change here needs a migration (``python -m token_store.schema revision "what changed"``); a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

#: Every constraint has a name, so that a later migration can drop it on any database.
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

#: SQLite numbers rows by itself only for a column of type INTEGER.
_ID = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """Timezone-aware UTC in and out, on databases with (PostgreSQL) and without (SQLite) zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"time {value.isoformat()} has no timezone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar = {
        str: Text(),
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        bytes: LargeBinary(),
    }


class TokenRow(Base):
    __tablename__ = "tokens"
    __table_args__ = (UniqueConstraint("connection", "project", "class_name"), Index(None, "updated_at", "id"))

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    connection: Mapped[str]
    project: Mapped[str]
    class_name: Mapped[str]
    #: Number of the newest version ever stored; counts on, so that a number is never given twice.
    last_number: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    aliases: Mapped[list[AliasRow]] = relationship(viewonly=True, lazy="selectin", order_by="AliasRow.alias")
    tags: Mapped[list[TokenTagRow]] = relationship(viewonly=True, lazy="selectin", order_by="TokenTagRow.key")


class TokenVersionRow(Base):
    __tablename__ = "token_versions"
    __table_args__ = (UniqueConstraint("token_id", "number"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    token_id: Mapped[int] = mapped_column(_ID, ForeignKey("tokens.id"))
    number: Mapped[int]
    fingerprint: Mapped[dict[str, Any]]
    embedding: Mapped[bytes]
    sha256: Mapped[str]
    recipe: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any]]
    state: Mapped[str]
    parent_version: Mapped[int | None]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    provenance: Mapped[dict[str, Any]]
    state_at: Mapped[datetime]

    token: Mapped[TokenRow] = relationship(lazy="joined", innerjoin=True)
    sources: Mapped[list[VersionSourceRow]] = relationship(lazy="selectin", order_by="VersionSourceRow.position")
    aliases: Mapped[list[AliasRow]] = relationship(viewonly=True, lazy="selectin", order_by="AliasRow.alias")
    tags: Mapped[list[VersionTagRow]] = relationship(viewonly=True, lazy="selectin", order_by="VersionTagRow.key")


class VersionSourceRow(Base):
    """A correction a version was learned from.  No foreign key: provenance outlives a purged correction."""

    __tablename__ = "token_version_sources"

    version_id: Mapped[int] = mapped_column(_ID, ForeignKey("token_versions.id"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    correction_id: Mapped[int] = mapped_column(_ID, index=True)


class AliasRow(Base):
    """The composite foreign key keeps an alias from pointing at another token's version."""

    __tablename__ = "token_aliases"
    __table_args__ = (
        ForeignKeyConstraint(["token_id", "number"], ["token_versions.token_id", "token_versions.number"]),
        Index(None, "token_id", "number"),
    )

    token_id: Mapped[int] = mapped_column(_ID, ForeignKey("tokens.id"), primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int]
    updated_at: Mapped[datetime]


class AliasMoveRow(Base):
    """How an alias came to where it is; a rollback marks the move it takes back as ``undone``.

    Numbers without a foreign key: the history outlives a deleted version.
    """

    __tablename__ = "token_alias_moves"
    __table_args__ = (Index(None, "token_id", "alias", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    token_id: Mapped[int] = mapped_column(_ID, ForeignKey("tokens.id"))
    alias: Mapped[str]
    from_number: Mapped[int | None]
    to_number: Mapped[int | None]
    undone: Mapped[bool] = mapped_column(Boolean)
    at: Mapped[datetime]


class TokenTagRow(Base):
    __tablename__ = "token_tags"

    token_id: Mapped[int] = mapped_column(_ID, ForeignKey("tokens.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class VersionTagRow(Base):
    __tablename__ = "token_version_tags"

    version_id: Mapped[int] = mapped_column(_ID, ForeignKey("token_versions.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class JobRow(Base):
    __tablename__ = "jobs"
    __table_args__ = (Index(None, "state", "run_after"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]
    state: Mapped[str]
    attempts: Mapped[int]
    progress: Mapped[float] = mapped_column(Float)
    message: Mapped[str]
    result: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    run_after: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    worker: Mapped[str]


class CorrectionRow(Base):
    __tablename__ = "corrections"
    __table_args__ = (
        UniqueConstraint("connection", "project", "annotation_id", "updated_at"),
        Index(None, "connection", "project", "state"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    connection: Mapped[str]
    project: Mapped[str]
    annotation_id: Mapped[str]
    updated_at: Mapped[str]
    task_id: Mapped[str]
    image_ref: Mapped[str]
    image_sha256: Mapped[str | None]
    payload: Mapped[dict[str, Any]]
    annotator: Mapped[str]
    state: Mapped[str]
    note: Mapped[str]
    created_at: Mapped[datetime]
    job_id: Mapped[int | None] = mapped_column(_ID, ForeignKey("jobs.id"), index=True)

    labels: Mapped[list[CorrectionLabelRow]] = relationship(lazy="selectin", order_by="CorrectionLabelRow.position")
    job: Mapped[JobRow | None] = relationship()


class CorrectionLabelRow(Base):
    __tablename__ = "correction_labels"

    correction_id: Mapped[int] = mapped_column(_ID, ForeignKey("corrections.id"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    label: Mapped[str] = mapped_column(index=True)


class CorrectionMaskRow(Base):
    __tablename__ = "correction_masks"

    correction_id: Mapped[int] = mapped_column(_ID, ForeignKey("corrections.id"), primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    height: Mapped[int]
    width: Mapped[int]
    masks: Mapped[bytes]
    sha256: Mapped[str]


class ImageRow(Base):
    __tablename__ = "images"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    origin: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    prompt: Mapped[str]
    negative_prompt: Mapped[str]
    #: A seed may be any 64-bit unsigned integer, which no portable integer column holds.
    seed: Mapped[str | None]
    scheduler: Mapped[str]
    guidance: Mapped[float | None] = mapped_column(Float)
    steps: Mapped[int | None]
    model: Mapped[str]
    extra: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class ServedRow(Base):
    __tablename__ = "predictions_served"
    __table_args__ = (UniqueConstraint("connection", "project", "task_id", "model_version"),)

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    connection: Mapped[str]
    project: Mapped[str]
    task_id: Mapped[str]
    model_version: Mapped[str]
    regions: Mapped[dict[str, Any]]
    token_versions: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]

    labels: Mapped[list[ServedLabelRow]] = relationship(lazy="selectin", cascade="all, delete-orphan")


class ServedLabelRow(Base):
    """By what a served prediction asked for a label: a version's id, or None for the word.

    No foreign key to the version: what was served outlives a deleted version.
    """

    __tablename__ = "served_labels"
    __table_args__ = (Index(None, "version_id"), Index(None, "label"))

    served_id: Mapped[int] = mapped_column(_ID, ForeignKey("predictions_served.id"), primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    version_id: Mapped[int | None] = mapped_column(_ID)


class PausedClassRow(Base):
    """A class whose learning is paused; it may have no token yet."""

    __tablename__ = "paused_classes"

    connection: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(primary_key=True)
    class_name: Mapped[str] = mapped_column(primary_key=True)
    paused_at: Mapped[datetime]


class ProjectRow(Base):
    __tablename__ = "projects"

    connection: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(primary_key=True)
    options: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime]


class NoteRow(Base):
    """What is known of a project besides its options, such as how far it was reconciled."""

    __tablename__ = "project_notes"

    connection: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime]


class OutcomeRow(Base):
    __tablename__ = "proposal_outcomes"
    __table_args__ = (Index(None, "connection", "project", "label", "at"),)

    connection: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(primary_key=True)
    annotation_id: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    task_id: Mapped[str]
    annotator: Mapped[str]
    model_version: Mapped[str]
    token_version: Mapped[int | None]
    untouched: Mapped[int]
    changed: Mapped[int]
    deleted: Mapped[int]
    drawn: Mapped[int]
    iou: Mapped[float | None] = mapped_column(Float)
    lead_time: Mapped[float | None] = mapped_column(Float)
    at: Mapped[datetime]


class AuditRow(Base):
    """``connection``, ``project`` and ``class_name`` say what an entry is about; empty where it is about no such thing."""

    __tablename__ = "audit_log"
    __table_args__ = (Index(None, "connection", "project", "class_name", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    at: Mapped[datetime]
    who: Mapped[str]
    what: Mapped[str]
    why: Mapped[str]
    details: Mapped[dict[str, Any]]
    connection: Mapped[str]
    project: Mapped[str]
    class_name: Mapped[str]
