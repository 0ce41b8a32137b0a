"""``ovam-labeler tokens render|similar``: see what a token learned, and which classes learned the same thing."""

from __future__ import annotations

from pathlib import Path

import typer

from ovam_labeler.cli.common import CONNECTION, PROJECT, application, print_json, progress_bar, scope_of
from ovam_labeler.cli.tokens_common import JSON, NAME, check_token, note, number_or_alias, say, table


def render(
    name: str = NAME,
    image: Path = typer.Argument(..., metavar="IMAGE", help="Image file."),
    out_path: Path = typer.Option(..., "--out", metavar="PNG", help="File to write."),
    version: str = typer.Option("active", "--version", help="A number or an alias."),
    prompt: str = typer.Option("", "--prompt", help="Text that describes the image; conditions the reading pass."),
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = JSON,
) -> None:
    """Draw the heat map and the mask of a token on an image, beside those of the class's word and of the token's parent.

    Masks are drawn whether or not the class is judged present; the figure below each says how probable that is.
    """
    scope = scope_of(connection, project)
    with application() as app, progress_bar("Loading the model", quiet=json_output) as progress:
        from ovam_labeler.image_source import load_image
        from ovam_labeler.sharing.panels import draw, panels_of

        check_token(app.store, scope, name)
        token = app.store.get_version(scope, name, number_or_alias(version))
        loaded = load_image(image, app.settings)
        panels = panels_of(app, loaded, token, prompt=prompt, progress=progress)
        draw(loaded.pixels, panels, out_path)
    rows = [
        {
            "panel": p.title,
            "presence": round(p.presence, 4),
            "area": round(float(p.mask.mean()), 6),
            "version": p.version,
        }
        for p in panels
    ]
    if json_output:
        print_json({"file": str(out_path), "class_name": name, "panels": rows})
        return
    for p in panels:
        say(f"  {p.title:<24} presence {p.presence:.2f}, mask {100 * float(p.mask.mean()):.1f} % of the image")
    say(f"Wrote {out_path}")


def similar(
    name: str | None = typer.Argument(
        None, metavar="[NAME]", help="Compare this class with all others; default: every pair."
    ),
    least: float = typer.Option(
        0.6, "--least", min=-1.0, max=1.0, help="Leave out pairs that are less alike than this."
    ),
    limit: int = typer.Option(20, "--limit", min=1, max=10_000, help="Most pairs, the most alike first."),
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = JSON,
) -> None:
    """Find classes whose active tokens learned the same thing, of every scope unless one is given.

    The number is the mean of two cosines, -1 to 1: of class less background, and of what learning added to the start.  It
    says that two tokens light up alike, never why; look at both with `tokens render`.
    """
    scope = scope_of(connection, project) if connection is not None or project is not None else None
    with application() as app:
        from ovam_labeler.sharing.plausibility import background_of
        from ovam_labeler.sharing.similar import alike_pairs

        attributor = app.backend().attributor
        mine = [
            v
            for v in app.store.list_aliased("active", scope)
            if v.fingerprint.get("space") == attributor.fingerprint.space
        ]
        others = len(app.store.list_aliased("active", scope)) - len(mine)
        pairs = alike_pairs(mine, background_of(attributor), name=name, least=least, limit=limit)
    if json_output:
        print_json(
            [
                {
                    "similarity": round(p.similarity, 4),
                    "tokens": [
                        {"class_name": v.class_name, "scope": str(v.scope), "version": v.number}
                        for v in (p.one, p.other)
                    ],
                }
                for p in pairs
            ]
        )
        return
    if pairs:
        rows = [
            (f"{p.similarity:.2f}", *(c for v in (p.one, p.other) for c in (v.class_name, f"{v.scope} v{v.number}")))
            for p in pairs
        ]
        table(None, ("alike", "class", "of", "class", "of"), rows)
    else:
        say(f"No two active tokens are at least {least:g} alike.")
    if others:
        note(f"{others} active tokens belong to other base models and were left out.")
