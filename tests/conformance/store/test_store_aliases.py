"""Contract of the token store: aliases, states, listing, numbering by many threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from token_store_samples import OTHER, PROJECT, version

from token_store.contract import InvalidTokenError, InvalidValueError, NotFoundError, TokenStore


def test_alias_moves_rolls_back_and_goes(store: TokenStore) -> None:
    for value in (1, 2, 3):
        store.add_version(PROJECT, "cat", version(value), aliases=["active"])
    store.set_alias(PROJECT, "cat", "active", 1, who="ann", why="3 was worse")
    assert store.get_version(PROJECT, "cat", "active").number == 1
    store.set_alias(PROJECT, "cat", "active", None, who="ann", why="off")
    store.set_alias(PROJECT, "cat", "active", None, who="ann", why="off again")
    with pytest.raises(NotFoundError):
        store.get_version(PROJECT, "cat", "active")
    entries = store.audit()
    assert [(e["what"], e["why"], e["details"]["from"], e["details"]["to"]) for e in entries[:2]] == [
        ("alias.remove", "off", 1, None),
        ("alias.set", "3 was worse", 3, 1),
    ]
    assert (entries[0]["who"], entries[0]["details"]["class_name"]) == ("ann", "cat")
    assert len(entries) == 5
    assert len(store.audit(limit=2)) == 2
    with pytest.raises(InvalidValueError, match="alias"):
        store.set_alias(PROJECT, "cat", "12", 1, who="ann", why="")


def test_state_changes_and_metrics_merge(store: TokenStore) -> None:
    store.add_version(PROJECT, "cat", version())
    changed = store.set_version_state(PROJECT, "cat", 1, "proven", who="gate", why="+3", metrics={"gate_iou": 0.7})
    assert changed.state == "proven"
    assert changed.metrics == {"train_iou": 0.5, "losses": [1.0, 0.5], "gate_iou": 0.7}
    assert store.get_version(PROJECT, "cat", 1).metrics == changed.metrics
    entry = store.audit()[0]
    assert (entry["what"], entry["who"], entry["details"]["from"], entry["details"]["to"]) == (
        "version.state",
        "gate",
        "unproven",
        "proven",
    )
    with pytest.raises(InvalidTokenError, match="allowed"):
        store.set_version_state(PROJECT, "cat", 1, "great", who="w", why="y")


def test_list_tokens(store: TokenStore) -> None:
    store.add_version(PROJECT, "Étoile_1", version(), aliases=["active"])
    store.add_version(PROJECT, "Étoile_1", version(), aliases=["best"])
    store.add_version(OTHER, "etoileX1", version())
    (token,) = store.list_tokens(PROJECT)
    assert (token.versions, token.aliases) == (2, {"active": 1, "best": 2})
    assert [t.class_name for t in store.list_tokens(name_contains="étoile")] == ["Étoile_1"]
    assert [t.class_name for t in store.list_tokens(name_contains="E_1")] == ["Étoile_1"]
    assert store.list_tokens(name_contains="%") == []
    assert store.list_tokens(OTHER, "étoile") == []


def test_threads_lose_no_number(store: TokenStore) -> None:
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda i: store.add_version(PROJECT, "cat", version(i), aliases=["active"]), range(60)))
    assert sorted(v.number for v in made) == list(range(1, 61))
    assert all(v.embedding[0, 0] == i for i, v in enumerate(made))
    stored = store.list_versions(PROJECT, "cat")
    assert [v.number for v in stored] == list(range(1, 61))
    assert [v.number for v in stored if "active" in v.aliases] == [60]
