"""Fixtures of the protocol tests: a real store, drawn masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from protocol_helpers import DrawnApplication

from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.app import create_app


@pytest.fixture
def make_application(tmp_path: Path) -> Iterator[Callable[..., DrawnApplication]]:
    made: list[DrawnApplication] = []

    def make(**settings: Any) -> DrawnApplication:
        folder = tmp_path / f"state{len(made)}"
        folder.mkdir()
        made.append(DrawnApplication(Settings(data_dir=folder, _env_file=None, **settings)))
        return made[-1]

    yield make
    for application in made:
        application.store.close()


@pytest.fixture
def application(make_application: Callable[..., DrawnApplication]) -> DrawnApplication:
    return make_application()


@pytest.fixture
def app(application: DrawnApplication) -> Flask:
    return create_app(application)  # type: ignore[arg-type]


@pytest.fixture
def client(app: Flask) -> Any:
    return app.test_client()
