"""What tests of every folder share: one PostgreSQL a session, and databases of both kinds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from postgres_server import NoPostgresError, PostgresServer, running, scratch

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL, started at its first use."""
    try:
        with running() as server:
            yield server
    except NoPostgresError as error:
        if os.environ.get("OVAM_REQUIRE_POSTGRES"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(params=KINDS)
def new_database(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Makes blank databases of one kind: each call gives another's URL or path."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ovam-store-", dir=scratch()))
            made = iter(range(1_000_000))
            yield lambda: f"{folder}/database{next(made)}.sqlite3"
        else:
            server: PostgresServer = request.getfixturevalue("postgres")
            yield lambda: stack.enter_context(server.database())


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's file at the newest schema, to be copied: migrating takes far longer."""
    from token_store import open_store

    path = tmp_path_factory.mktemp("template") / "store.sqlite3"
    open_store(path).close()
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """A database at the newest schema, to be copied."""
    from token_store import open_store

    postgres.execute("CREATE DATABASE ovam_template TEMPLATE template0")
    open_store(postgres.url.rpartition("/")[0] + "/ovam_template").close()
    return "ovam_template"


@pytest.fixture(params=KINDS)
def store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL or path of an empty store at the newest schema, one of each kind."""
    if request.param == "sqlite":
        with tempfile.TemporaryDirectory(prefix="ovam-store-", dir=scratch()) as name:
            path = Path(name) / "store.sqlite3"
            shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
            yield str(path)
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database(request.getfixturevalue("postgres_template")) as url:
        yield url
