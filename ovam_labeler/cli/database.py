"""``ovam-labeler db``: the token store's database, its schema and its backups."""

from __future__ import annotations

from pathlib import Path

import typer

from ovam_labeler.cli.common import err, load_settings, out, print_json
from ovam_labeler.cli.tokens_common import confirm

app = typer.Typer(help="The database: upgrade, check, backup, restore.", no_args_is_help=True, rich_markup_mode=None)

_JSON = typer.Option(False, "--json", help="Print as JSON.")


def _say(sentence: str) -> None:
    out.print(sentence, markup=False, highlight=False, soft_wrap=True)


@app.command("upgrade")
def upgrade(json_output: bool = _JSON) -> None:
    """Bring the database to this program's schema, or create it.  Each start of the program does the same."""
    from ovam_labeler.translate import translate_errors
    from token_store import open_store, schema

    with translate_errors():
        open_store(load_settings().resolved_database_url()).close()
        revision = schema.head()
    if json_output:
        print_json({"schema": revision})
    else:
        _say(f"The database has schema {revision}, this program's newest.")


@app.command("check")
def check(json_output: bool = _JSON) -> None:
    """Whether the database is whole, current and durable; every embedding and mask is read.

    Changes nothing; exit code 1 where something is wrong.
    """
    from ovam_labeler.translate import translate_errors
    from token_store import open_store

    with translate_errors():
        store = open_store(load_settings().resolved_database_url(), migrate=False)
        try:
            problems = store.check()
        finally:
            store.close()
    if json_output:
        print_json({"ok": not problems, "problems": problems})
    elif not problems:
        _say("The database is whole, current and durable.")
    for problem in [] if json_output else problems:
        err.print(problem, markup=False, highlight=False, soft_wrap=True)
    if problems:
        raise typer.Exit(1)


@app.command("backup")
def backup(
    target: Path = typer.Argument(..., metavar="FILE", help="New file of the copy."),
    json_output: bool = _JSON,
) -> None:
    """Copy the database to one file, as it is at one moment; the program may be running.

    Captures are not in it (they can be made again), nor are images taught on the command line (the folder `images` in
    OVAM_DATA_DIR).  PostgreSQL is copied by `pg_dump`.
    """
    from ovam_labeler.translate import translate_errors
    from token_store.backup import backup as copy

    with translate_errors():
        copy(load_settings().resolved_database_url(), target)
    if json_output:
        print_json({"file": str(target), "bytes": target.stat().st_size})
    else:
        _say(f"Copied to {target} ({target.stat().st_size / 1e6:.1f} MB).")


@app.command("restore")
def restore(
    source: Path = typer.Argument(..., metavar="FILE", help="A copy made by `db backup`."),
    yes: bool = typer.Option(False, "--yes", help="Do not ask: replace what the database holds."),
    json_output: bool = _JSON,
) -> None:
    """Replace the database by a copy, after the copy was found whole.  What was there is kept beside it (SQLite)."""
    from ovam_labeler.translate import translate_errors
    from token_store.backup import restore as put_back

    confirm("Replace everything the database holds?", yes)
    with translate_errors():
        kept = put_back(source, load_settings().resolved_database_url())
    if json_output:
        print_json({"restored": str(source), "kept": None if kept is None else str(kept)})
    else:
        _say(f"Restored from {source}." + (f" What was there is in {kept}." if kept else ""))
