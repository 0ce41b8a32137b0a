"""Docs that cannot lie: generated pages are current, every setting and command is documented."""

from __future__ import annotations

import pytest

from docs import generate


@pytest.mark.parametrize("page", sorted(generate.PAGES))
def test_page_is_current(page: str) -> None:
    assert (generate.HERE / page).read_text(encoding="utf-8") == generate.PAGES[page](), "run `make docs`"


def test_every_setting_has_a_description() -> None:
    from ovam_labeler.settings import Settings

    assert [n for n, f in Settings.model_fields.items() if not f.description] == []


def test_every_target_of_the_makefile_is_documented() -> None:
    makefile = (generate.HERE.parent / "Makefile").read_text(encoding="utf-8")
    public = [
        line.split(":")[0]
        for line in makefile.splitlines()
        if line and line[0].islower() and ":" in line and "=" not in line.split(":")[0]
    ]
    undocumented = [
        t
        for t in public
        if t != "install-crf" and not any(line.startswith(t + ":") and "## " in line for line in makefile.splitlines())
    ]
    assert undocumented == []
