"""``ovam-labeler tokens export|import``: tokens as files that people hand to each other (docs/sharing.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ovam_labeler.cli.common import CONNECTION, PROJECT, application, print_json, progress_bar, scope_of
from ovam_labeler.cli.tokens_common import JSON, check_token, note, number_or_alias, open_registry, parse_tags, say, who
from ovam_labeler.cli.tokens_touched import predict_again
from token_store.exchange import NO_LICENCE, check_licence

if TYPE_CHECKING:
    from ovam_labeler.sharing.importing import Imported
    from token_store.entities import TokenVersion


def export(
    names: list[str] = typer.Argument(
        None, metavar="[NAME]...", help="Class names; default: every class of the scope."
    ),
    out_path: Path = typer.Option(
        ..., "--out", metavar="PATH", help="A name ending in .safetensors: one file; else a folder with a file a token."
    ),
    version: str = typer.Option("active", "--version", help="A number or an alias, of every class."),
    licence: str = typer.Option(
        NO_LICENCE, "--licence", help="SPDX expression that others may use it under: CC-BY-4.0, ..."
    ),
    tag: list[str] = typer.Option([], "--tag", metavar="KEY[=VALUE]", help="Only tokens with this tag; repeatable."),
    force: bool = typer.Option(False, "--force", help="Replace files that are there."),
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = JSON,
) -> None:
    """Write learned tokens to one safetensors file, or one each into a folder, for others to import.

    Names of people, projects, hosts, paths and tasks stay here; the class names go along.
    """
    scope = scope_of(connection, project)
    with open_registry() as store:
        check_licence(licence)
        from ovam_labeler.sharing.exporting import export_to
        from token_store.entities import TokenFilter

        wanted = list(dict.fromkeys(names or []))
        if wanted:
            for name in wanted:
                check_token(store, scope, name)
            versions = [store.get_version(scope, name, number_or_alias(version)) for name in wanted]
            tags = parse_tags(tag)
            versions = [v for v in versions if _tagged(dict(store.get_token(scope, v.class_name).tags), tags)]
        else:
            from ovam_labeler.cli.tokens_common import every_token

            where = TokenFilter(scope=scope, tags=parse_tags(tag), alias=None if version.isdigit() else version)
            tokens, _ = every_token(store, where, None)
            versions = [store.get_version(scope, t.class_name, number_or_alias(version)) for t in tokens]
        files = export_to(versions, out_path, licence=licence, replace=force)
    if json_output:
        print_json({"files": [str(f) for f in files], "tokens": [_exported(v) for v in versions]})
        return
    for v in versions:
        say(f"Exported {v.class_name!r} v{v.number} ({v.state}).")
    say(f"Wrote {files[0]}" if len(files) == 1 else f"Wrote {len(files)} files to {out_path}")


def import_(
    path: Path = typer.Argument(..., metavar="PATH", help="A .safetensors file, or a folder of them."),
    name: str | None = typer.Option(
        None, "--as", metavar="NAME", help="The class's name here, for a file of one token."
    ),
    activate: bool = typer.Option(False, "--activate", help="Use it for predictions at once."),
    no_plausibility: bool = typer.Option(
        False, "--no-plausibility", help="Skip the check whether the numbers look like a class of this model."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only check the files."),
    connection: str | None = CONNECTION,
    project: str | None = PROJECT,
    json_output: bool = JSON,
) -> None:
    """Take in tokens exported by this program, or a textual inversion of diffusers, as versions of this store.

    Everything is checked before anything is written, and all of it is written at once: one bad token refuses the whole
    file or folder.  What comes in is
    `unproven`, has the alias `imported`, and is the class's `candidate` unless another version waits as that: look at it with
    `tokens render NAME IMAGE --version imported`, then `tokens promote NAME imported`.
    """
    scope = scope_of(connection, project)
    with application() as app, progress_bar("Loading the model", quiet=json_output) as progress:
        from ovam_labeler.sharing.importing import check_plausible, keep, read_path
        from ovam_labeler.sharing.plausibility import reference_of

        attributor = app.backend().attributor
        incoming = read_path(path, attributor, name=name)
        judged = not no_plausibility
        if judged:
            reference = reference_of(attributor, progress)
            judged = reference.cut is not None
            check_plausible(incoming, reference)
        done = [] if dry_run else keep(app.store, incoming, scope, attributor, activate=activate, who=who())
        touched = predict_again(app.store, [one.moved for one in done])
    if not judged and not json_output:
        note("Whether the numbers look like a class of this model was not judged.")
    if json_output:
        print_json(
            {
                "dry_run": dry_run,
                "plausibility_judged": judged,
                "checked": [{"class_name": i.token.class_name, "kind": i.kind} for i in incoming],
                "imported": [_imported(i) for i in done],
                **touched.as_json(),
            }
        )
        return
    for one in incoming if dry_run else []:
        say(f"{one.token.class_name!r} ({one.kind}) is fine; nothing was written.")
    for result in done:
        v = result.version
        if result.fresh:
            say(f"Imported {v.class_name!r} as version {v.number} ({v.scope}): {', '.join((v.state, *v.aliases))}.")
        else:
            say(f"{v.class_name!r} has these very numbers already: version {v.number} ({v.scope}).")
        for warning in result.warnings:
            note(f"warning: {warning}")
    touched.tell()


def _tagged(have: dict[str, str], wanted: dict[str, str | None]) -> bool:
    return all(k in have and (v is None or have[k] == v) for k, v in wanted.items())


def _exported(v: TokenVersion) -> dict[str, Any]:
    return {"class_name": v.class_name, "version": v.number, "state": v.state, "sha256": v.sha256}


def _imported(one: Imported) -> dict[str, Any]:
    v = one.version
    return {
        "class_name": v.class_name,
        "scope": str(v.scope),
        "version": v.number,
        "fresh": one.fresh,
        "state": v.state,
        "aliases": list(v.aliases),
        "warnings": list(one.warnings),
    }
