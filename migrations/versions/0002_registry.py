"""Registry: history of aliases, tags, provenance, audit log by class, tasks by version, paused classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _add_required("tokens", {"updated_at": (sa.DateTime(timezone=True), "created_at")}, autoincrement=False)
    op.create_index("ix_tokens_updated_at_id", "tokens", ["updated_at", "id"])
    _add_required(
        "token_versions",
        {"provenance": (sa.JSON(), "'{}'"), "state_at": (sa.DateTime(timezone=True), "created_at")},
        autoincrement=True,
    )
    _add_required(
        "audit_log", {name: (sa.Text(), "''") for name in ("connection", "project", "class_name")}, autoincrement=True
    )
    op.create_index(
        "ix_audit_log_connection_project_class_name_id", "audit_log", ["connection", "project", "class_name", "id"]
    )
    _create_tables()
    _fill_from_audit()
    _fill_served()


def _add_required(table: str, columns: Mapping[str, tuple[Any, str]], *, autoincrement: bool) -> None:
    """Add columns that may not be empty, filled by an SQL expression first."""
    with op.batch_alter_table(table) as batch:
        for name, (kind, _) in columns.items():
            batch.add_column(sa.Column(name, kind, nullable=True))
    for name, (_, value) in columns.items():
        # Names and values are this file's own.
        op.execute(f"UPDATE {table} SET {name} = {value}")  # noqa: S608
    kwargs = {"sqlite_autoincrement": True} if autoincrement else {}
    with op.batch_alter_table(table, table_kwargs=kwargs) as batch:
        for name, (kind, _) in columns.items():
            batch.alter_column(name, existing_type=kind, nullable=False)


def _create_tables() -> None:
    op.create_table(
        "token_alias_moves",
        sa.Column("id", _ID, nullable=False),
        sa.Column("token_id", _ID, nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("from_number", sa.Integer(), nullable=True),
        sa.Column("to_number", sa.Integer(), nullable=True),
        sa.Column("undone", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["token_id"], ["tokens.id"], name="fk_token_alias_moves_token_id_tokens"),
        sa.PrimaryKeyConstraint("id", name="pk_token_alias_moves"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_token_alias_moves_token_id_alias_id", "token_alias_moves", ["token_id", "alias", "id"])
    op.create_table(
        "token_tags",
        sa.Column("token_id", _ID, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["token_id"], ["tokens.id"], name="fk_token_tags_token_id_tokens"),
        sa.PrimaryKeyConstraint("token_id", "key", name="pk_token_tags"),
    )
    op.create_table(
        "token_version_tags",
        sa.Column("version_id", _ID, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["token_versions.id"], name="fk_token_version_tags_version_id_token_versions"
        ),
        sa.PrimaryKeyConstraint("version_id", "key", name="pk_token_version_tags"),
    )
    op.create_table(
        "served_labels",
        sa.Column("served_id", _ID, nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("version_id", _ID, nullable=True),
        sa.ForeignKeyConstraint(
            ["served_id"], ["predictions_served.id"], name="fk_served_labels_served_id_predictions_served"
        ),
        sa.PrimaryKeyConstraint("served_id", "label", name="pk_served_labels"),
    )
    op.create_index("ix_served_labels_version_id", "served_labels", ["version_id"])
    op.create_index("ix_served_labels_label", "served_labels", ["label"])
    op.create_table(
        "paused_classes",
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("class_name", sa.Text(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("connection", "project", "class_name", name="pk_paused_classes"),
    )


def _rows(query: str) -> list[Any]:
    return list(op.get_bind().execute(sa.text(query)))


def _json(value: Any) -> dict[str, Any]:
    """A JSON column read by plain SQL: text on SQLite, already parsed on PostgreSQL."""
    found = json.loads(value) if isinstance(value, str | bytes) else value
    return found if isinstance(found, dict) else {}


def _fill_from_audit() -> None:
    """What the audit log's details say goes to its new columns; moves of aliases become their history."""
    bind = op.get_bind()
    tokens = {
        (r.connection, r.project, r.class_name): r.id
        for r in _rows("SELECT id, connection, project, class_name FROM tokens")
    }
    about = sa.text(
        "UPDATE audit_log SET connection = :connection, project = :project, class_name = :name WHERE id = :id"
    )
    move = sa.text(
        "INSERT INTO token_alias_moves (token_id, alias, from_number, to_number, undone, at) "
        "SELECT :token, :alias, :before, :after, :undone, at FROM audit_log WHERE id = :id"
    )
    for row in _rows("SELECT id, what, details FROM audit_log ORDER BY id"):
        details = _json(row.details)
        key = (details.get("connection"), details.get("project"), details.get("class_name"))
        if not all(isinstance(part, str) for part in key):
            continue
        bind.execute(about, {"connection": key[0], "project": key[1], "name": key[2], "id": row.id})
        if row.what in ("alias.set", "alias.remove") and key in tokens and isinstance(details.get("alias"), str):
            values = {"token": tokens[key], "alias": details["alias"], "undone": False, "id": row.id}
            bind.execute(move, values | {"before": details.get("from"), "after": details.get("to")})


def _fill_served() -> None:
    """Versions that served predictions were made with: a project's own where it has that number, else the global one."""
    bind = op.get_bind()
    versions = {
        (r.connection, r.project, r.class_name, r.number): r.id
        for r in _rows(
            "SELECT v.id, t.connection, t.project, t.class_name, v.number "
            "FROM token_versions v JOIN tokens t ON t.id = v.token_id"
        )
    }
    insert = sa.text("INSERT INTO served_labels (served_id, label, version_id) VALUES (:served, :label, :version)")
    for row in _rows("SELECT id, connection, project, token_versions FROM predictions_served"):
        for label, number in _json(row.token_versions).items():
            own = versions.get((row.connection, row.project, label, number))
            found = own if own is not None else versions.get(("*", "", label, number))
            if found is not None:
                bind.execute(insert, {"served": row.id, "label": label, "version": found})
