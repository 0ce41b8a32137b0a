"""Migrations on both databases: blank to head, every old head to head with its data, models equal to migrations."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from token_store import open_store, schema, tensor_codec
from token_store.engine import WRITES, locate, make_engine
from token_store.entities import Scope
from token_store.tables import Base

SCOPE = Scope("default", "1")
OLD_HEADS = [s.revision for s in ScriptDirectory.from_config(schema.alembic_config()).walk_revisions()][1:]
WHEN = "2026-11-23 10:00:00+00:00"


def at_revision(url: str, revision: str) -> None:
    """A database filled by the first program and left by the one of that revision."""
    location = locate(url)
    engine = make_engine(location, for_migration=True)
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        command.upgrade(schema.alembic_config(connection), "0001")
        first_tables(connection)
        command.upgrade(schema.alembic_config(connection), revision)
    engine.dispose()


def first_tables(connection: Connection) -> None:
    """Two versions of a class, the second active after the first was; a correction, a job, a served prediction."""
    data, sha256 = tensor_codec.encode_embedding(np.ones((2, 3), np.float32))
    when = WHEN if connection.dialect.name == "postgresql" else WHEN.removesuffix("+00:00") + ".000000"

    def insert(table: str, **values: object) -> None:
        plain = {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in values.items()}
        # Table and columns are this test's own.
        names = f"({', '.join(plain)}) VALUES ({', '.join(':' + k for k in plain)})"
        connection.execute(text(f"INSERT INTO {table} {names}"), plain)  # noqa: S608

    place = {"connection": "default", "project": "1"}
    insert("tokens", id=1, **place, class_name="cat", last_number=2, created_at=when)
    for number in (1, 2):
        insert(
            "token_versions",
            id=number + 10,
            token_id=1,
            number=number,
            fingerprint={"space": "a"},
            embedding=data,
            sha256=sha256,
            recipe={},
            metrics={"train_iou": 0.5},
            state="unproven",
            parent_version=number - 1 or None,
            created_by="old",
            created_at=when,
        )
    insert("token_version_sources", version_id=11, position=0, correction_id=5)
    insert("token_aliases", token_id=1, alias="active", number=2, updated_at=when)
    for before, after in ((None, 1), (1, 2)):
        details = {**place, "class_name": "cat", "alias": "active", "from": before, "to": after}
        insert("audit_log", at=when, who="old", what="alias.set", why="new version", details=details)
    insert("audit_log", at=when, who="old", what="correction.retracted", why="", details={"correction_id": 4})
    insert(
        "predictions_served",
        id=1,
        **place,
        task_id="3",
        model_version="m",
        regions={"r": "cat"},
        token_versions={"cat": 2},
        created_at=when,
    )


def test_blank_to_head_is_what_the_models_say(new_database: Callable[[], str]) -> None:
    url = new_database()
    store = open_store(url)
    assert store.check() == []
    store.close()
    engine = make_engine(locate(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == schema.head()
    engine.dispose()


@pytest.mark.parametrize("revision", OLD_HEADS)
def test_old_head_to_head_keeps_its_data(new_database: Callable[[], str], revision: str) -> None:
    url = new_database()
    at_revision(url, revision)
    store = open_store(url)
    assert store.check() == []
    assert store.get_version(SCOPE, "cat", "active").number == 2
    old = store.get_version(SCOPE, "cat", 1)
    assert (old.source_corrections, old.provenance, old.state_at) == ((5,), {}, old.created_at)
    token = store.get_token(SCOPE, "cat")
    assert token.updated_at == token.created_at
    assert len(store.audit(scope=SCOPE, class_name="cat")) == 2
    assert [s.task_id for s in store.affected_tasks(SCOPE, "cat", 2)] == ["3"]
    # The history of the alias came along: one step back is the version before.
    assert store.rollback(SCOPE, "cat", who="ann", why="").after == 1
    new = store.set_version_state(SCOPE, "cat", 2, "rejected", who="ann", why="")
    assert new.state == "rejected"
    store.close()
    engine = make_engine(locate(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()
