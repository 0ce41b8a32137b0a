"""Contract of the token store: several classes at once, all of them or none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from token_store_samples import OTHER, PROJECT, version

from token_store.contract import InvalidTokenError, TokenStore
from token_store.entities import AliasChange

NAMES = ("cat", "dog", "chat à poil")


def test_a_bundle_is_stored_with_its_aliases(store: TokenStore) -> None:
    store.add_version(PROJECT, "dog", version(9), aliases=["candidate"])
    found = store.add_bundle(
        PROJECT,
        {name: version(k) for k, name in enumerate(NAMES)},
        aliases=["imported"],
        vacant_aliases=["candidate"],
        who="ann",
        why="from a file",
    )
    assert [(a.version.class_name, a.version.number, a.fresh, a.moved) for a in found] == [
        ("cat", 1, True, None),
        ("dog", 2, True, None),
        ("chat à poil", 1, True, None),
    ]
    assert [a.version.aliases for a in found] == [
        ("candidate", "imported"),
        ("imported",),  # another version of this class waits for a decision
        ("candidate", "imported"),
    ]
    assert {(e["who"], e["why"]) for e in store.audit(5)} == {("ann", "from a file")}


def test_what_is_there_already_is_not_stored_again(store: TokenStore) -> None:
    store.add_bundle(PROJECT, {"cat": version(1), "dog": version(2)}, who="ann", why="")
    other_space = version(2, fingerprint={"space": "another"})
    again = store.add_bundle(PROJECT, {"dog": other_space, "cat": version(1)}, aliases=["x"], who="ann", why="")
    assert [(a.version.class_name, a.version.number, a.fresh) for a in again] == [("dog", 2, True), ("cat", 1, False)]
    assert again[1].version.aliases == ()
    (elsewhere,) = store.add_bundle(OTHER, {"cat": version(1)}, who="ann", why="")
    assert elsewhere.fresh


def test_activating_moves_and_overrules_as_a_promotion_does(store: TokenStore) -> None:
    store.add_version(PROJECT, "cat", version(1, state="rejected"), aliases=["candidate"])
    store.add_version(PROJECT, "cat", version(2), aliases=["active"])
    found = store.add_bundle(PROJECT, {"cat": version(1), "dog": version(3)}, activate=True, who="ann", why="")
    assert [a.moved for a in found] == [
        AliasChange(PROJECT, "cat", "active", 2, 1),
        AliasChange(PROJECT, "dog", "active", None, 1),
    ]
    assert (found[0].version.aliases, found[0].version.state) == (("active",), "unproven")
    assert store.rollback(PROJECT, "cat", who="ann", why="").after == 2
    again = store.add_bundle(PROJECT, {"dog": version(3)}, activate=True, who="ann", why="")
    assert again[0].moved == AliasChange(PROJECT, "dog", "active", 1, 1)


@pytest.mark.parametrize("bad", [{"state": "wonderful"}, {"fingerprint": {}}, {"metrics": {"x": float("nan")}}])
def test_one_refused_token_refuses_all(store: TokenStore, bad: dict[str, object]) -> None:
    bundle = {"cat": version(1), "dog": replace(version(2), **bad)}  # type: ignore[arg-type]
    with pytest.raises(InvalidTokenError, match="'dog'"):
        store.add_bundle(PROJECT, bundle, aliases=["imported"], activate=True, who="ann", why="")
    assert store.list_tokens() == [] and store.audit() == []


def test_the_same_bundle_at_once_gives_one_version_each(store: TokenStore) -> None:
    """Two orders of the same classes: nobody waits for the other, nothing is stored twice."""
    bundle = {f"class {k}": version(k) for k in range(20)}
    turned = dict(reversed(bundle.items()))
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(store.add_bundle, PROJECT, each, aliases=["imported"], who="ann", why="")
            for each in (bundle, turned) * 4
        ]
        added = [one for call in calls for one in call.result()]
    assert sum(one.fresh for one in added) == len(bundle)
    assert [len(store.list_versions(PROJECT, name)) for name in bundle] == [1] * len(bundle)
