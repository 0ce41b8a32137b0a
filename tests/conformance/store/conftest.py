"""The implementations that the token store's contract is run over: SQLite, and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from token_store import open_store
from token_store.contract import TokenStore


@pytest.fixture
def url(store_url: str) -> str:
    return store_url


@pytest.fixture
def store(url: str) -> Iterator[TokenStore]:
    opened = open_store(url)
    yield opened
    opened.close()
