"""Stage ``extra``: drawings and rendered models beyond the emoji sets, beside the ``data`` stage's sprites.

Writes ``extra_sprites.npy``, ``extra_table.npy`` (concept, style), ``extra.json`` (concepts that the emoji have not) and
``attribution.csv`` (every work used beyond the emoji sets), which ``export`` puts beside the licences.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np

from . import clipart, furniture, icons
from .clipart import Extra
from .concepts import load_people, squash
from .data import SPRITE_SIZE, draw, fetch_package
from .library import Library
from .sources import ALL_STYLES, ATTRIBUTION, ICONS_PACKAGE, ONE_COLOUR, STYLES, run_folder
from .tint import RANDOM, paint, palette

MOST_OF_ONE = 5  # clip art of one concept
FLATTEST = 12.0  # spread of colour values (0..255) below which a drawing is a silhouette or an unlit model


def known_names(concepts: list[dict[str, Any]], known: list[str]) -> dict[str, str]:
    """Squashed name to label; a name that several concepts share belongs to the first."""
    result: dict[str, str] = {}
    for concept in concepts:
        if concept["label"] in known:
            for name in [concept["label"], *concept["names"]]:
                result.setdefault(squash(name), concept["label"])
    return result


def people() -> list[tuple[str, Extra]]:
    """(style, drawing) of every person emoji, in the styles that training may see."""
    test_only = {style.name for style in STYLES if style.test_only}
    return [
        (style, Extra(source, concept.label, None))
        for concept in load_people()
        for style, source in concept.sources.items()
        if style not in test_only
    ]


def _draw(job: tuple[int, str | Path]) -> tuple[int, np.ndarray | None]:
    number, source = job
    try:
        if isinstance(source, Path) and source.suffix == ".svg":
            source = source.read_text("utf-8", errors="ignore")
        return number, draw(source, SPRITE_SIZE)
    except (ValueError, OSError, RuntimeError):  # a drawing that the renderer refuses
        return number, None


class Tinter:
    """Colours for icons that have none: mostly those of a training drawing of the same concept."""

    one_colour = frozenset(entry.split(":")[0] for entry in ONE_COLOUR.split())

    def __init__(self) -> None:
        self.library = Library(extra=False)
        self.rng = np.random.default_rng(2026)

    def __call__(self, icon: np.ndarray, label: str | None) -> np.ndarray | None:
        library, rng = self.library, self.rng
        own = label is not None and rng.random() >= RANDOM
        concept = library.index[label] if own and label else int(rng.choice(library.known))
        rows = library.train[concept]
        return paint(icon, palette(library.pixels[rows[rng.integers(len(rows))][1]]), rng)


def main() -> None:
    folder = run_folder()
    meta = json.loads((folder / "meta.json").read_text())
    split = json.loads((folder / "split.json").read_text())
    table = json.loads((folder / "tokenizer/tokenizer.json").read_text())["model"]["vocab"]
    vocabulary = {entry for entry in table if entry.isalpha() and len(entry) > 1}
    names = known_names(meta["concepts"], split["known"])
    found: list[tuple[str, Extra]] = [("openclipart", extra) for extra in clipart.drawings(names, vocabulary)]
    found += [("sweethome3d", extra) for extra in furniture.views(names, vocabulary)]
    found += people()
    fetch_package(ICONS_PACKAGE)
    found += icons.drawings(names, vocabulary)
    with multiprocessing.Pool(2) as pool:
        drawn = dict(pool.imap_unordered(_draw, [(i, e.source) for i, (_, e) in enumerate(found)], 16))
    labels = [c["label"] for c in meta["concepts"]]
    index = {label: i for i, label in enumerate(labels)}
    order = {style.name: i for i, style in enumerate(ALL_STYLES)}
    added: list[dict[str, Any]] = []
    licences, credits = {s.name: s.licence for s in ALL_STYLES}, set[tuple[str, ...]]()
    rows, sprites, taken_of, tinter = [], [], dict[str, int](), Tinter()
    for number, (style, extra) in enumerate(found):
        sprite = drawn[number]
        if sprite is not None and style in tinter.one_colour:
            sprite = tinter(sprite, extra.label)
        if sprite is None or sprite[..., :3][sprite[..., 3] > 128].std() < FLATTEST:
            continue
        if not 0.08 < (sprite[..., 3] > 128).mean() < 0.97:  # a line, or a picture with its ground
            continue
        label = extra.label or extra.name
        if style == "openclipart" and taken_of.get(label, 0) >= MOST_OF_ONE:
            continue
        taken_of[label] = taken_of.get(label, 0) + 1
        if label not in index:
            index[label] = len(labels) + len(added)
            added.append({"label": label, "names": [extra.name], "tags": [], "code": ""})
        rows.append((index[label], order[style]))
        if extra.work:
            credits.add((style, licences[style], extra.work, extra.name, extra.credit))
        sprites.append(sprite)
    for name, content in (("extra_sprites", np.stack(sprites)), ("extra_table", np.array(rows, np.int32))):
        np.save(folder / f"{name}.new.npy", content)
        (folder / f"{name}.new.npy").replace(folder / f"{name}.npy")  # running stages keep the file they opened
    (folder / "extra.json").write_text(json.dumps(added, indent=1))
    with (folder / ATTRIBUTION).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("source", "licence", "work", "name in training", "by"))
        writer.writerows(sorted(credits))
    known = sum(r[0] < len(labels) for r in rows)
    print(f"{len(rows)} sprites: {known} of known concepts, {len(added)} further concepts")
    for name, number in order.items():
        print(name, sum(r[1] == number for r in rows))


if __name__ == "__main__":
    main()
