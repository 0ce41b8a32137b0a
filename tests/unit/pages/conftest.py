"""The pages over a real store, with the colour model, as a browser on this machine sees them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "application"))

from colour_model import ColourModel
from pages_helpers import Visitor

from ovam_labeler.application import OvamApplication, build_application
from ovam_labeler.settings import Settings
from token_store.sqlalchemy_store import open_store


@pytest.fixture
def model() -> ColourModel:
    return ColourModel()


@pytest.fixture(scope="session")
def blank_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without rows, copied for each test."""
    path = tmp_path_factory.mktemp("database") / "ovam.sqlite3"
    open_store(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def make_application(
    tmp_path: Path, blank_database: Path, model: ColourModel
) -> Iterator[Callable[..., OvamApplication]]:
    made: list[OvamApplication] = []

    def make(**settings: Any) -> OvamApplication:
        folder = tmp_path / f"data{len(made)}"
        folder.mkdir()
        shutil.copy(blank_database, folder / "ovam.sqlite3")
        made.append(
            build_application(Settings(data_dir=folder, _env_file=None, **settings), loader=model.load)  # type: ignore[call-arg]
        )
        return made[-1]

    yield make
    for application in made:
        application.close()


@pytest.fixture
def application(make_application: Callable[..., OvamApplication]) -> OvamApplication:
    return make_application()


@pytest.fixture
def visitor(application: OvamApplication) -> Visitor:
    return Visitor(application)
