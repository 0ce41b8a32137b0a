"""Plugins are found by entry point, strangers' as built-ins; a broken one is listed with its error and stops nothing."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from backends import discovery
from backends.contract import BackendError

Install = Callable[[str], None]
ROOT = Path(__file__).parents[2]


def test_built_ins() -> None:
    for found, names in (
        (discovery.backends(), {"embedded", "stable-diffusion"}),
        (discovery.methods(), {"ovam"}),
        (discovery.refiners(), {"dense-crf", "guided-filter"}),
    ):
        assert names <= set(found)
        assert all(found[name].error is None and found[name].get() for name in names)
        assert all(found[name].distribution == "ovam-labeler" for name in names)


def test_the_table_for_uninstalled_trees_is_the_projects_registration() -> None:
    registered = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    for group, table in discovery.BUILT_INS.items():
        assert dict(table) == registered[group]


def test_a_stranger_is_found_by_its_entry_points(installed: Install) -> None:
    assert "colour" not in discovery.backends()
    installed("colour_backend")
    found = discovery.backends()["colour"]
    assert (found.distribution, found.error) == ("colour-backend", None)
    assert discovery.methods()["contrast"].get().name == "contrast"
    assert discovery.refiners()["smooth"].get().name == "smooth"


def test_a_stranger_goes_before_the_built_in_that_takes_any_hub_name(installed: Install) -> None:
    installed("colour_backend")
    assert discovery.backends()["stable-diffusion"].get().accepts("colours/basic")
    assert discovery.load_backend("colours/basic").name == "colour"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no-module", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("no-attribute", "AttributeError"),
        ("wrong-type", "resolves to str, a BackendSpec is needed"),
        ("wrong-version", "built for version 2 of the plugin contract; this is version 1"),
        ("embedded (broken-backend)", "the name 'embedded' is taken by ovam-labeler"),
    ],
)
def test_broken_backends_are_listed(installed: Install, name: str, sentence: str) -> None:
    installed("broken_backend")
    found = discovery.backends()[name]
    assert found.spec is None and found.distribution == "broken-backend"
    assert found.error is not None and sentence in found.error
    with pytest.raises(BackendError, match="cannot be used"):
        found.get()


def test_broken_methods_and_refiners_are_listed(installed: Install) -> None:
    installed("broken_backend")
    assert "lacks maps of a MaskMethod" in str(discovery.methods()["half-a-method"].error)
    assert "a plugin must not do this" in str(discovery.refiners()["exits"].error)
    assert discovery.methods()["ovam"].error is None and discovery.refiners()["guided-filter"].error is None


def test_broken_plugins_stop_nothing(installed: Install, random_folder: Path) -> None:
    installed("broken_backend")
    installed("colour_backend")
    assert discovery.load_backend("colours/basic").name == "colour"
    assert discovery.load_backend(str(random_folder)).name == "stable-diffusion"


def test_choosing_by_name(installed: Install) -> None:
    installed("broken_backend")
    with pytest.raises(BackendError, match="Backend 'magic' is not installed; installed are .*embedded"):
        discovery.load_backend("embedded", backend="magic")
    with pytest.raises(BackendError, match="Plugin 'wrong-type' of broken-backend cannot be used"):
        discovery.load_backend("embedded", backend="wrong-type")
    with pytest.raises(BackendError, match="No backend can load model '/nowhere'; give 'embedded', a folder"):
        discovery.load_backend("/nowhere")
