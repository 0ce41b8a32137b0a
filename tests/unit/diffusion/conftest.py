"""A pipeline folder of random tiny weights, loaded as a user's folder is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from random_pipeline import build

from backends.contract import Backend
from backends.discovery import load_backend


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "random-sd")


@pytest.fixture(scope="session")
def backend(folder: Path) -> Backend:
    return load_backend(str(folder))


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A non-square image (90 x 150) with structure in it: gradients, a disc, grain."""
    y, x = np.mgrid[:90, :150]
    image = np.stack([x * 1.6, y * 2.6, 255 - x], -1).clip(0, 255)
    image[(y - 40) ** 2 + (x - 90) ** 2 < 600] = (250, 60, 40)
    grain = np.random.default_rng(3).integers(0, 40, image.shape)
    return (image * 0.85 + grain).clip(0, 255).astype(np.uint8)
