"""Alembic's entry.  It imports nothing of ours: connection and tables are handed over by token_store.schema."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy.types import TypeDecorator


def render_plain_type(kind: str, item: Any, _autogenerate: Any) -> str | bool:
    """A migration names the type in the database, not our wrapper of it, so that it works when the wrapper is gone."""
    return f"sa.{item.impl!r}" if kind == "type" and isinstance(item, TypeDecorator) else False


connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("Migrations run through the program: type `ovam-labeler db upgrade`.")
context.configure(
    connection=connection,
    target_metadata=context.config.attributes.get("target_metadata"),
    # SQLite alters a table by rebuilding it.
    render_as_batch=True,
    render_item=render_plain_type,
    compare_type=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
