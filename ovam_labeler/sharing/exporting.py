"""From a stored version to a file for others: what helps them is kept, what tells of people and places stays here."""

from __future__ import annotations

import hashlib
import math
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovam_labeler import __version__
from ovam_labeler.errors import BadRequestError
from token_store.entities import TokenVersion
from token_store.exchange import NO_LICENCE, SharedToken, pack

#: Recorded settings that say how captures were read; everything else of a fingerprint's settings stays here.
_SETTINGS = ("layers", "cfg_half", "timesteps", "side", "groups", "scheduler", "template", "context", "method")
#: Figures of learning and of the gate.  Sentences, ids and names among the metrics are not among them.
_METRICS = (
    "train_iou",
    "word_iou",
    "parent_iou",
    "losses",
    "best_epoch",
    "seconds",
    "examples",
    "negatives",
    "known_word",
    "held_out",
    "evidence",
    "agreement",
    "libraries",
)
#: Ids of corrections inside a gate's evidence.
_IDS = ("set_aside",)
#: A short technical word (an optimizer, a scheduler's class) and a version; no host, path, mail or sentence is either.
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}")
_VERSION = re.compile(r"\d{1,6}(\.[A-Za-z0-9]{1,12}){1,5}(\+[A-Za-z0-9]{1,12})?")
#: The name of a part of an embedding space ("key projections"), and its hash.
_PART = re.compile(r"[a-z][a-z ]{0,40}")
_DIGEST = re.compile(r"[0-9a-f]{16,64}")
_MOST_NUMBERS = 2000


def shared(version: TokenVersion, licence: str = NO_LICENCE) -> SharedToken:
    """The version as it leaves this machine.

    Left out: who made it, its scope (connection and project), ids of corrections and tasks, notes and reasons, tags, and
    any folder the base model lies in.  The class name goes along, since it is what is shared.
    """
    fingerprint = version.fingerprint
    settings, parts = fingerprint.get("settings"), fingerprint.get("parts")
    claimed = version.provenance.get("origin") if version.provenance.get("kind") == "imported" else None
    return SharedToken(
        class_name=version.class_name,
        fingerprint={
            "space": fingerprint.get("space"),
            "model": re.split(r"[/\\]", str(fingerprint.get("model", "")).rstrip("/\\"))[-1][:100],
            "parts": {
                k: v
                for k, v in (parts if isinstance(parts, Mapping) else {}).items()
                if _PART.fullmatch(str(k)) and _DIGEST.fullmatch(str(v))
            },
            "settings": {
                k: v for k, v in (settings if isinstance(settings, Mapping) else {}).items() if k in _SETTINGS
            },
        },
        embedding=version.embedding,
        recipe=_plain(version.recipe),
        metrics=_plain({k: v for k, v in version.metrics.items() if k in _METRICS}),
        licence=licence if licence != NO_LICENCE else str(version.provenance.get("licence", NO_LICENCE)),
        provenance={
            "program": f"ovam-labeler {__version__}",
            "state": version.state,
            "version": version.number,
            "corrections": len(version.source_corrections),
            "made": version.created_at.date().isoformat(),
            "lineage": "imported" if claimed is not None else "learned",
        },
    )


def file_name(version: TokenVersion) -> str:
    """A file name no class name can lead astray with, different for different classes: ``tea_pot-1a2b3c4d.v3.safetensors``."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", version.class_name).strip("_")[:60] or "class"
    digest = hashlib.sha256(version.class_name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain}-{digest}.v{version.number}.safetensors"


def export_to(versions: Sequence[TokenVersion], target: Path, *, licence: str, replace: bool = False) -> list[Path]:
    """Write versions to one file (a name ending in ``.safetensors``), or one file each into a folder.

    A file appears whole or not at all.  Returns the files.

    Raises:
        BadRequestError: nothing to export, a file that is there and not to be replaced, a place that cannot be written.
        InvalidTokenError: a class name that no import would take, or too much for one file.
    """
    if not versions:
        raise BadRequestError("No token matches; nothing is exported.")
    if target.suffix == ".safetensors":
        files = {target: pack([shared(v, licence) for v in versions])}
    else:
        files = {target / file_name(v): pack([shared(v, licence)]) for v in versions}
        if len(files) != len(versions):
            raise BadRequestError("Two scopes hold the same class and number; export them to different folders.")
    there = [path for path in files if path.exists() or path.is_symlink()]
    if there and not replace:
        raise BadRequestError(f"{there[0]} is there already; give another --out, or --force to replace it.")
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, data)
    except OSError as error:
        raise BadRequestError(f"{error.filename or target} cannot be written: {error.strerror}.") from error
    return list(files)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers, truth values and short technical words under plain keys; anything else is left out."""
    found: dict[str, Any] = {}
    for key, one in value.items():
        if not isinstance(key, str) or not _WORD.fullmatch(key) or key in _IDS:
            continue
        if isinstance(one, Mapping):
            found[key] = _plain(one)
        elif isinstance(one, list | tuple):
            if len(one) <= _MOST_NUMBERS and all(_number(x) for x in one):
                found[key] = [_short(x) for x in one]
        elif isinstance(one, bool) or _number(one):
            found[key] = _short(one)
        elif isinstance(one, str) and (_WORD.fullmatch(one) or _VERSION.fullmatch(one)):
            found[key] = one
    return found


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < 1 << 53


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
