"""Installs plugins from a folder outside the tree, and builds a model for each backend that needs one."""

from __future__ import annotations

import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from backends import discovery

PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def install(project: str, site: Path) -> None:
    """What ``pip install --target site project`` does for a pure Python project: copy, and write its metadata."""
    source = PLUGINS / project
    described = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    shutil.copytree(source / "src", site, dirs_exist_ok=True)
    info = site / f"{described['name'].replace('-', '_')}-{described['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: {described['version']}\n"
    )
    lines = []
    for group, points in described["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture()
def installed(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Install plugin projects into a folder outside the tree; they are gone after the test."""
    before = set(sys.modules)

    def add(project: str) -> None:
        site = tmp_path / project
        install(project, site)
        sys.path.append(str(site))
        added.append(str(site))
        discovery.refresh()

    added: list[str] = []
    yield add
    for site in added:
        sys.path.remove(site)
    for name in set(sys.modules) - before:
        if name.startswith(("colour_backend", "broken_")):
            del sys.modules[name]
    discovery.refresh()


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion pipeline of random tiny weights."""
    sys.path.append(str(Path(__file__).parents[1] / "unit" / "diffusion"))
    from random_pipeline import build

    return build(tmp_path_factory.mktemp("conformance") / "random-sd")
