"""Contract of the token store: versions of tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from token_store_samples import OTHER, PROJECT, version

from token_store import open_store
from token_store.contract import InvalidTokenError, NotFoundError, StoreError, TokenStore
from token_store.entities import Scope


def test_versions_are_numbered_and_come_back_whole(store: TokenStore, url: str) -> None:
    first = store.add_version(PROJECT, "cat", version(1), aliases=["active"])
    second = store.add_version(
        PROJECT, "cat", version(2, source_corrections=(9, 4), parent_version=1), aliases=["active", "best"]
    )
    assert (first.number, first.aliases) == (1, ("active",))
    assert (second.number, second.aliases, second.parent_version) == (2, ("active", "best"), 1)
    assert second.source_corrections == (9, 4)
    assert second.created_at.tzinfo is not None
    assert abs(second.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    again = open_store(url)
    read = again.get_version(PROJECT, "cat", 1)
    again.close()
    assert read.embedding.dtype == np.float32
    np.testing.assert_array_equal(read.embedding, version(1).embedding)
    assert read.aliases == ()
    assert (read.fingerprint, read.recipe, read.metrics) == (
        version().fingerprint,
        version().recipe,
        version().metrics,
    )
    assert (read.sha256, read.created_at, read.state) == (first.sha256, first.created_at, "unproven")
    assert [v.number for v in store.list_versions(PROJECT, "cat")] == [1, 2]
    assert store.list_versions(OTHER, "cat") == []


@pytest.mark.parametrize(
    "name",
    [
        "defect_07",
        " two  spaces ",
        "x" * 500,
        "🦊" * 500,
        "é",
        "e\u0301",
        "100%_'\";--",
        "CAT",
        "cat",
        "猫/\\猫",
        "a\nb",
    ],
)
def test_class_names_are_kept_verbatim(store: TokenStore, name: str) -> None:
    store.add_version(PROJECT, "neighbour", version(), aliases=["active"])
    assert store.add_version(PROJECT, name, version(), aliases=["active"]).class_name == name
    assert store.get_version(PROJECT, name, "active").class_name == name
    assert list(store.find_active(PROJECT, [name])) == [name]
    assert name in [token.class_name for token in store.list_tokens()]


def test_names_that_look_alike_are_different(store: TokenStore) -> None:
    for name in ("cat", "CAT", "cat ", "é", "e\u0301"):
        assert store.add_version(PROJECT, name, version()).number == 1


@pytest.mark.parametrize(
    "embedding",
    [
        np.ones((1, 3), np.float32),
        np.ones((2, 0), np.float32),
        np.ones(6, np.float32),
        np.ones((2, 3, 1), np.float32),
        np.ones((2, 3), np.float64),
        np.ones((2, 3), np.float16),
        np.array([[1, np.nan], [1, 1]], np.float32),
        np.array([[1, np.inf], [1, 1]], np.float32),
        [[1.0, 2.0], [1.0, 2.0]],
    ],
)
def test_wrong_embedding_is_refused(store: TokenStore, embedding: Any) -> None:
    with pytest.raises(InvalidTokenError, match="embedding"):
        store.add_version(PROJECT, "cat", version(embedding=embedding))
    assert store.list_tokens() == []


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("", {}, "class_name"),
        ("  ", {}, "class_name"),
        ("x" * 501, {}, "class_name"),
        ("a\0b", {}, "class_name"),
        ("\ud800", {}, "class_name"),
        ("cat", {"state": "good"}, "state.*unproven, proven"),
        ("cat", {"metrics": {"loss": float("nan")}}, "metrics"),
        ("cat", {"metrics": {"loss": {1, 2}}}, "metrics"),
        ("cat", {"fingerprint": {"model": "tiny"}}, "fingerprint.space"),
    ],
)
def test_wrong_metadata_is_refused(store: TokenStore, name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidTokenError, match=message):
        store.add_version(PROJECT, name, version(**changes))
    assert store.list_tokens() == []


def test_numpy_numbers_are_plain_afterwards(store: TokenStore) -> None:
    metrics = {"iou": np.float32(0.5), "losses": np.array([1.0, 2.0]), "n": np.int64(3), "ok": np.bool_(True)}
    stored = store.add_version(PROJECT, "cat", version(metrics=metrics)).metrics
    assert stored == {"iou": 0.5, "losses": [1.0, 2.0], "n": 3, "ok": True}


def test_active_of_project_wins_over_global(store: TokenStore) -> None:
    store.add_version(Scope.everywhere(), "cat", version(1), aliases=["active"])
    store.add_version(Scope.everywhere(), "dog", version(2), aliases=["active"])
    store.add_version(PROJECT, "cat", version(3), aliases=["active"])
    store.add_version(PROJECT, "inactive", version(4))
    store.add_version(OTHER, "fox", version(5), aliases=["active"])
    found = store.find_active(PROJECT, ["dog", "cat", "inactive", "fox", "unknown", "dog"])
    assert {name: found[name].scope for name in found} == {"dog": Scope.everywhere(), "cat": PROJECT}
    assert found["cat"].embedding[0, 0] == 3
    assert store.find_active(PROJECT, []) == {}
    assert len(store.find_active(PROJECT, [f"n{i}" for i in range(1500)] + ["cat"])) == 1


def test_unknown_is_not_found(store: TokenStore) -> None:
    store.add_version(PROJECT, "cat", version())
    for asked in (2, 0, -1, "active"):
        with pytest.raises(NotFoundError, match="cat"):
            store.get_version(PROJECT, "cat", asked)
    with pytest.raises(NotFoundError):
        store.get_version(OTHER, "cat", 1)
    with pytest.raises(NotFoundError):
        store.set_alias(PROJECT, "cat", "active", 2, who="w", why="y")
    with pytest.raises(NotFoundError):
        store.set_alias(PROJECT, "dog", "active", 1, who="w", why="y")
    with pytest.raises(NotFoundError):
        store.set_version_state(PROJECT, "cat", 2, "proven", who="w", why="y")


def test_what_no_database_can_hold_is_refused_not_crashed(store: TokenStore) -> None:
    with pytest.raises(StoreError):
        store.get_job(10**30)
    with pytest.raises(StoreError):
        store.find_active(PROJECT, ["\ud800"])
