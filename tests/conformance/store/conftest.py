"""The implementations that the token store's contract is run over.

Set ``OVAM_TEST_POSTGRES_URL=postgresql://user@host/name`` (a user who may create databases) to run it on PostgreSQL too.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from token_store import open_store
from token_store.contract import TokenStore

POSTGRES = os.environ.get("OVAM_TEST_POSTGRES_URL")


def sqlite_url(folder: Path) -> Iterator[str]:
    yield str(folder / "store.sqlite3")


def postgres_url(_folder: Path) -> Iterator[str]:
    assert POSTGRES is not None
    name = f"ovam_{uuid.uuid4().hex}"
    server = create_engine(make_url(POSTGRES).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        yield make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
        connection.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')
    server.dispose()


IMPLEMENTATIONS: dict[str, Callable[[Path], Iterator[str]]] = {"sqlite": sqlite_url}
if POSTGRES:
    IMPLEMENTATIONS["postgresql"] = postgres_url


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield from IMPLEMENTATIONS[request.param](tmp_path)


@pytest.fixture
def store(url: str) -> Iterator[TokenStore]:
    opened = open_store(url)
    yield opened
    opened.close()
