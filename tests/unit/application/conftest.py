"""An application over a real store and cache, with the colour model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from colour_backend import ColourModel

from ovam_labeler.application import OvamApplication, build_application
from ovam_labeler.settings import Settings


@pytest.fixture
def model() -> ColourModel:
    return ColourModel()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", _env_file=None)  # type: ignore[call-arg]


@pytest.fixture
def app(settings: Settings, model: ColourModel) -> Iterator[OvamApplication]:
    with build_application(settings, loader=model.load) as application:
        yield application
