"""Contract of the token store: images, served predictions, project options."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from token_store_samples import OTHER, PROJECT

from token_store import open_store
from token_store.contract import InvalidValueError, StoreError, TokenStore
from token_store.entities import ImageRecord, ServedPrediction


def test_implements_contract(store: TokenStore) -> None:
    assert isinstance(store, TokenStore)
    assert store.check() == []


def test_images(store: TokenStore) -> None:
    received = ImageRecord("a" * 64, "received", 640, 480)
    generated = ImageRecord(
        "a" * 64, "generated", 640, 480, "a cat", "blurry", 2**64 - 1, "ddim", 7.5, 30, "tiny", {"half": "cond"}
    )
    assert store.get_image("a" * 64) is None
    store.put_image(received)
    store.put_image(replace(received, prompt="later"))
    assert store.get_image("a" * 64) == received
    store.put_image(generated)
    store.put_image(received)
    store.put_image(replace(generated, seed=1))
    assert store.get_image("a" * 64) == generated
    with pytest.raises(InvalidValueError, match="size"):
        store.put_image(replace(received, width=0))


def test_served_predictions(store: TokenStore) -> None:
    start = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

    def served(minute: int, model: str, region: str, task: str = "3") -> ServedPrediction:
        at = start + timedelta(minutes=minute)
        return ServedPrediction(PROJECT, task, model, {region: "cat"}, {"cat": minute}, at)

    assert store.last_served(PROJECT, "3") is None
    store.put_served([served(0, "m1", "r0"), served(0, "m1", "other", task="4")])
    store.put_served([served(2, "m2", "r2"), served(1, "m1", "r1")])
    assert store.last_served(PROJECT, "3") == served(2, "m2", "r2")
    assert store.last_served(PROJECT, "4") == served(0, "m1", "other", task="4")
    assert store.last_served(OTHER, "3") is None
    store.put_served([served(3, "m1", "r3")])
    assert store.last_served(PROJECT, "3") == served(3, "m1", "r3")
    store.put_served([])


def test_project_options(store: TokenStore) -> None:
    assert store.get_project_options(PROJECT) == {}
    store.put_project_options(PROJECT, {"overlap": "exclusive", "labels": ["é"]})
    store.put_project_options(PROJECT, {"overlap": "independent"})
    assert store.get_project_options(PROJECT) == {"overlap": "independent"}
    assert store.get_project_options(OTHER) == {}


def test_closed_store_says_so(url: str) -> None:
    opened = open_store(url)
    opened.close()
    opened.close()
    with pytest.raises(StoreError, match="closed"):
        opened.list_tokens()
