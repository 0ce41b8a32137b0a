"""The one string of /setup and /predict: a hash of everything that shapes a project's masks.

It is computed from settings, files' samples and the store, never by loading a model, and is equal in every process.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from ovam_labeler.domain import Label, ProjectOptions
from ovam_labeler.settings import Settings
from token_store.entities import TokenVersion

#: Raised where this program's own way from maps to masks changes, so that old predictions are asked for again.
MASKS_REVISION = 2

_SAMPLE = 4096
_SAMPLES = 16
_MODEL_FILES = (".json", ".txt", ".safetensors", ".model")


def model_version(
    settings: Settings, labels: Sequence[Label], active: Mapping[str, TokenVersion], options: ProjectOptions
) -> str:
    """``ovam-<base>-<12 hex digits>``.

    Args:
        active: active token versions by label name.  Two projects with the same tokens, words and options share a string.
        options: ``learning`` and ``exhaustive`` shape later tokens, not masks, and are left out.
    """
    words = []
    for label in sorted(set(labels), key=lambda x: (x.name, x.prompt or "")):
        version = active.get(label.name)
        token = None if version is None else [version.number, version.sha256, version.fingerprint.get("space")]
        words.append([label.name, label.prompt, token])
    shape = {
        "revision": MASKS_REVISION,
        "model": model_identity(settings.model),
        "backend": settings.backend,
        "preset": settings.cache_preset,
        "method": options.method,
        "refiner": options.refiner,
        "overlap": options.overlap,
        "threshold": options.threshold,
        "presence": options.presence,
        "words": options.words,
        "tiles": options.tiles,
        "regions": [options.regions, options.max_regions, options.polygon_points],
        "labels": words,
    }
    text = json.dumps(shape, sort_keys=True, ensure_ascii=True)
    return f"ovam-{base_name(settings.model)}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def base_name(model: str) -> str:
    """Short name of a base model for people: the last part of its folder or hub name."""
    name = re.sub(r"[^a-z0-9.]+", "-", model.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1].lower()).strip("-.")
    return name[:40] or "model"


@lru_cache(maxsize=16)
def model_identity(model: str) -> str:
    """Content id of a base model from samples of its files (a few milliseconds), or its hub name.

    Taken once a process, as the model itself is loaded once.
    """
    folder = _embedded_folder() if model == "embedded" else Path(model).expanduser()
    if folder is None or not folder.is_dir():
        return f"name:{model}"
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in _MODEL_FILES and p.is_file()):
        total.update(f"{path.relative_to(folder).as_posix()}:".encode())
        total.update(_sample(path))
    return f"files:{total.hexdigest()}"


def _embedded_folder() -> Path | None:
    found = importlib.util.find_spec("backends.diffusion.tiny")
    places = list(found.submodule_search_locations or ()) if found is not None else []
    return Path(places[0]) / "weights" if places else None


def _sample(path: Path) -> bytes:
    """Size and evenly spaced samples of a file; files of up to 64 KiB count whole."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        if size <= _SAMPLE * _SAMPLES:
            digest.update(file.read())
        else:
            for k in range(_SAMPLES):
                file.seek((size - _SAMPLE) * k // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE))
    return digest.digest()
