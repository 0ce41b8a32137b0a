"""``ovam-labeler cache``: what the capture cache holds, and making room."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import typer
from rich.table import Table

from ovam_labeler.cli.common import application, out, print_json

app = typer.Typer(help="Capture cache: list, prune.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_entries(
    limit: int = typer.Option(20, "--limit", min=0, help="Entries shown, last used first."),
    json_output: bool = typer.Option(False, "--json", help="Print as JSON, every entry."),
) -> None:
    """Entries with the bytes of each need, and the totals."""
    with application() as app_:
        entries, bound = app_.cache.entries(), app_.cache.max_bytes
    needs: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    for entry in entries:
        key = entry.header.key if entry.header is not None else {}
        by_need = dict(entry.header.bytes_by_need) if entry.header is not None else {}
        for need, size in by_need.items():
            needs[need] = needs.get(need, 0) + size
        rows.append(
            {
                "image": key.get("image"),
                "origin": key.get("origin"),
                "needs": key.get("needs"),
                "preset": key.get("preset"),
                "bytes": entry.nbytes,
                "bytes_by_need": by_need,
                "last_used": datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds"),
                "pinned": entry.pinned,
                "damaged": entry.header is None,
            }
        )
    total = sum(entry.nbytes for entry in entries)
    pinned = sum(entry.nbytes for entry in entries if entry.pinned)
    if json_output:
        print_json(
            {"bytes": total, "max_bytes": bound, "pinned_bytes": pinned, "bytes_by_need": needs, "entries": rows}
        )
        return
    table = Table("image", "origin", "preset", "MB", "of which", "last used (UTC)", "pinned", box=None)
    for row in rows[:limit]:
        table.add_row(
            str(row["image"] or "damaged")[:12],
            row["origin"] or "",
            row["preset"] or "",
            f"{row['bytes'] / 1e6:.2f}",
            _parts(row["bytes_by_need"]),
            row["last_used"][:16].replace("T", " "),
            "yes" if row["pinned"] else "",
        )
    if rows[:limit]:
        out.print(table)
    out.print(
        f"{len(rows)} entries, {total / 1e6:.1f} MB of {bound / 1e6:.0f} MB allowed, {pinned / 1e6:.1f} MB needed by "
        f"pending jobs; {_parts(needs) or 'nothing'}.",
        highlight=False,
    )


@app.command("prune")
def prune(
    to: int = typer.Option(0, "--to", min=0, help="Bytes that may stay; 0 empties the cache."),
    json_output: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Evict the least recently used down to a size.  What a pending job needs stays; the rest is made again when asked for."""
    with application() as app_:
        gone, freed = app_.cache.prune(to)
        left = app_.cache.size()
    if json_output:
        print_json({"entries": gone, "bytes": freed, "left_bytes": left})
    else:
        out.print(f"{gone} entries evicted, {freed / 1e6:.1f} MB; {left / 1e6:.1f} MB are left.", highlight=False)


def _parts(by_need: dict[str, int]) -> str:
    return ", ".join(f"{need} {size / 1e6:.2f}" for need, size in sorted(by_need.items()))
