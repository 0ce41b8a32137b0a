"""``check`` reads what is stored: bytes that changed behind the store's back are named, on both databases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sqlalchemy import text
from token_store_samples import PROJECT, correction, version

from token_store import integrity, open_store
from token_store.engine import WRITES, locate, make_engine
from token_store.entities import CorrectionMask


@pytest.fixture
def changed(store_url: str) -> Callable[[str], list[str]]:
    """What ``check`` says after a statement by somebody else; the store holds 7 versions and 12 corrections' masks."""
    store = open_store(store_url)
    for number in range(7):
        store.add_version(PROJECT, f"class {number}", version(number))
    mask = np.eye(9, dtype=bool)
    for number in range(12):
        known = store.add_correction(correction(str(number)))[0].id
        store.put_correction_masks([CorrectionMask(known, label, "positive", mask, ~mask) for label in ("cat", "dog")])
    assert store.check() == []
    store.close()

    def change(statement: str) -> list[str]:
        engine = make_engine(locate(store_url))
        with engine.execution_options(**{WRITES: True}).begin() as connection:
            connection.execute(text(statement))
        engine.dispose()
        store = open_store(store_url)
        try:
            assert store.check(quick=True) == []
            return store.check()
        finally:
            store.close()

    return change


def test_a_changed_embedding_is_named(changed: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "_ROWS", 2)
    (sentence,) = changed("UPDATE token_versions SET sha256 = 'x' WHERE id = 3")
    assert "version 1 of 'class 2' (default/1)" in sentence and "restore a backup" in sentence
    (sentence,) = changed("UPDATE token_versions SET embedding = substr(embedding, 1, 20)")
    assert "'class 4' (default/1) and 2 more" in sentence


def test_a_changed_mask_is_named(changed: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "_ROWS", 30)
    (sentence,) = changed("UPDATE correction_masks SET sha256 = 'x' WHERE correction_id = 12 AND label = 'dog'")
    assert "mask of 'dog' of correction 12 does not match" in sentence


def test_a_counter_that_went_back_is_told(changed: Callable[[str], list[str]]) -> None:
    (sentence,) = changed("UPDATE tokens SET last_number = 0 WHERE class_name = 'class 1'")
    assert "'class 1'" in sentence and "given already" in sentence
