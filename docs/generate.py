"""Writes the parts of docs/ that are made from code: settings.md and cli.md.  ``make docs``; a test fails when they are stale."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer
from pydantic_core import PydanticUndefined

HERE = Path(__file__).parent


def settings_page() -> str:
    """Markdown table of every OVAM_ variable."""
    from ovam_labeler.settings import Settings

    lines = [
        "# Settings",
        "Made by `make docs` from `ovam_labeler/settings.py`. Every setting is an environment variable, or a line of a `.env` file in the working folder.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        if name == "data_dir":
            default = "`~/.local/share/ovam-labeler`"
        elif field.default is None or field.default is PydanticUndefined:
            default = "unset"
        else:
            default = f"`{field.default}`"
        lines.append(f"| `OVAM_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def _command_page(command: Any, path: str, lines: list[str]) -> None:
    # A fixed width, whatever terminal runs this.
    context = command.make_context(path, [], resilient_parsing=True, terminal_width=110, max_content_width=110)
    lines += [f"## {path}", "```", command.get_help(context).rstrip(), "```", ""]
    for name, child in sorted(getattr(command, "commands", {}).items()):
        _command_page(child, f"{path} {name}", lines)


def cli_page() -> str:
    """Markdown of every command's help."""
    from ovam_labeler.cli.main import app

    lines = ["# Command line", "Made by `make docs` from the commands' own help.", ""]
    _command_page(typer.main.get_command(app), "ovam-labeler", lines)
    return "\n".join(lines).rstrip() + "\n"


PAGES = {"settings.md": settings_page, "cli.md": cli_page}


def main() -> None:
    for name, make in PAGES.items():
        (HERE / name).write_text(make(), encoding="utf-8")
        print(f"wrote docs/{name}", file=sys.stderr)


if __name__ == "__main__":
    main()
