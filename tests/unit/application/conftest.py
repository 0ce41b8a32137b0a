"""An application over a real store and cache, with the colour model."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from colour_model import ColourModel

from ovam_labeler.application import OvamApplication, build_application
from ovam_labeler.settings import Settings
from token_store.sqlalchemy_store import open_store


@pytest.fixture
def model() -> ColourModel:
    return ColourModel()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without rows, copied for each test: migrating takes most of a short test's time."""
    path = tmp_path_factory.mktemp("database") / "ovam.sqlite3"
    open_store(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def settings(tmp_path: Path, empty_database: Path) -> Settings:
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(empty_database, folder / "ovam.sqlite3")
    return Settings(data_dir=folder, _env_file=None)  # type: ignore[call-arg]


@pytest.fixture
def app(settings: Settings, model: ColourModel) -> Iterator[OvamApplication]:
    with build_application(settings, loader=model.load) as application:
        yield application
