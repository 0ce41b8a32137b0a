"""Stage ``pack``: the sprites that training never saw, as a small zip for demos, tests and evaluation.

Holds novel concepts (all styles that may be shipped) and the held-out designs of known concepts. Share-alike styles
are left out.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import zipfile
from pathlib import Path

from PIL import Image

from .concepts import load_concepts
from .data import draw
from .sources import STYLES, run_folder
from .split import load_split

SIZE = 192
TARGET = Path("ovam_labeler/demo/assets/held_out_sprites.zip")


def write_pack(target: Path, quality: int) -> dict:
    """Draw, compress and index the held-out sprites; returns the index."""
    split = load_split(run_folder() / "split.json")
    groups = {
        "novel_test": ("novel", "test"),
        "novel_validation": ("novel", "val"),
        "known_test": ("known", "test"),
        "known_validation": ("known", "val"),
    }
    part_of = {label: part for name, part in groups.items() for label in split[name]}
    entries = []
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for concept in load_concepts():
            if concept.label not in part_of:
                continue
            kind, part = part_of[concept.label]
            for style in STYLES:
                held = kind == "novel" or style.family in split["held_out_families"][concept.label]
                if style.test_only or not held or style.name not in concept.sources:
                    continue
                pixels = draw(concept.sources[style.name], SIZE, square=False)
                if pixels is None:
                    continue
                name = f"{re.sub('[^a-z0-9]+', '-', concept.label)}__{style.name}.webp"
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, alpha_quality=80, method=6)
                _add(archive, name, buffer.getvalue())
                entries.append(
                    {
                        "concept": concept.label,
                        "names": concept.names,
                        "style": style.name,
                        "family": style.family,
                        "kind": kind,
                        "split": part,
                        "licence": style.licence,
                        "file": name,
                    }
                )
        index = {
            "version": 1,
            "longest_side": SIZE,
            "sprites": entries,
            "styles": [{"name": s.name, "package": s.package, "licence": s.licence} for s in STYLES if not s.test_only],
        }
        _add(archive, "index.json", json.dumps(index, indent=0, ensure_ascii=False).encode())
    return index


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=(2026, 1, 1, 0, 0, 0))  # the same bytes each time
    archive.writestr(entry, content, zipfile.ZIP_DEFLATED if name.endswith("json") else zipfile.ZIP_STORED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument("--quality", type=int, default=72)
    a = parser.parse_args()
    index = write_pack(a.target, a.quality)
    print(len(index["sprites"]), "sprites,", a.target.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
