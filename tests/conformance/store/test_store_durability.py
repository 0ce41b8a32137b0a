"""Durability settings are read from the database itself, at each start and by ``doctor``."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from postgres_server import PostgresServer, running

from ovam_labeler.application import build_application
from ovam_labeler.checks import database
from ovam_labeler.settings import Settings
from token_store import open_store


def test_a_durable_store_has_nothing_to_say(store_url: str) -> None:
    store = open_store(store_url)
    assert store.check() == store.check(quick=True) == []
    store.close()


def test_an_asynchronous_commit_is_told_at_start_and_by_doctor(
    postgres: PostgresServer, postgres_template: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with postgres.database(postgres_template) as url:
        settings = Settings(data_dir=tmp_path, database_url=f"{url}?options=-csynchronous_commit%3Doff", _env_file=None)
        with caplog.at_level(logging.WARNING):
            build_application(settings).close()
        assert "has synchronous_commit off instead of on: an acknowledged correction could be lost" in caplog.text
        found = database(settings)
        assert found.ok is False and "synchronous_commit off" in found.sentence
        good = database(Settings(data_dir=tmp_path, database_url=url, _env_file=None))
        assert good.ok is True and "fsync and synchronous_commit on" in good.sentence


def test_a_server_without_fsync_is_told_at_start_and_by_doctor(
    postgres: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own postgresql.conf says so, and nothing about it is seen from the URL.  ``postgres``: skips where there is none."""
    weak = {"fsync": "off", "synchronous_commit": "off"}
    with running(weak) as server, server.database() as url:
        settings = Settings(data_dir=tmp_path, database_url=url, _env_file=None)
        with caplog.at_level(logging.WARNING):
            build_application(settings).close()
        found = database(settings)
        assert found.ok is False and "postgresql.conf" in found.fix
        for name in weak:
            assert (
                f"has {name} off instead of on: an acknowledged correction could be lost in a power cut" in caplog.text
            )
            assert f"has {name} off" in found.sentence
