"""The embedded model's text encoder and key projections, read once; a store of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from token_registry import Registry

from backends.contract import Attributor
from backends.discovery import load_backend
from ovam_labeler.sharing.plausibility import Reference, reference_of


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def attributor() -> Attributor:
    return load_backend("embedded").attributor


@pytest.fixture(scope="session")
def reference(attributor: Attributor) -> Reference:
    return reference_of(attributor)


@pytest.fixture(autouse=True)
def words_are_read_once(
    attributor: Attributor, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import command reads the model's words each time; here what the real function found serves all tests."""

    def cached(other: Attributor, progress: object = None) -> Reference:
        assert other.fingerprint.space == attributor.fingerprint.space
        found: Reference = request.getfixturevalue("reference")
        return found

    monkeypatch.setattr("ovam_labeler.sharing.plausibility.reference_of", cached)


@pytest.fixture
def registry(tmp_path: Path, attributor: Attributor) -> Registry:
    return Registry(tmp_path / "state", attributor)
