"""``ovam-labeler tokens``: the registry of learned tokens.  The commands live in ``tokens_*.py``, a module for each kind."""

from __future__ import annotations

import typer

from ovam_labeler.cli import tokens_live, tokens_look, tokens_maps, tokens_pause, tokens_share, tokens_tidy

app = typer.Typer(
    help="Learned tokens: what is live, what was, and files to share them.\n\n"
    "Exit codes: 0 done; 1 the database, the model or the disk failed; 2 refused: a wrong argument, nothing of that name, a "
    "bad file; 3 not confirmed, nothing was done.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("list")(tokens_look.list_tokens)
app.command("show")(tokens_look.show)
app.command("history")(tokens_look.history)
app.command("compare")(tokens_look.compare)
app.command("promote")(tokens_live.promote)
app.command("rollback")(tokens_live.rollback)
app.command("archive")(tokens_live.archive)
app.command("tag")(tokens_live.tag)
app.command("pause")(tokens_pause.pause)
app.command("resume")(tokens_pause.resume)
app.command("export")(tokens_share.export)
app.command("import")(tokens_share.import_)
app.command("prune")(tokens_tidy.prune)
app.command("gc")(tokens_tidy.gc)
app.command("render")(tokens_maps.render)
app.command("similar")(tokens_maps.similar)
