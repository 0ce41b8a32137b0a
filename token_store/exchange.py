"""Tokens as files that people hand to each other: one ``.safetensors`` with one token or many, and its way back.

Layout: tensors ``token.0``, ``token.1``, ... each (n, E) F32 with row 0 the background; in the file's metadata ``format``
(:data:`FORMAT`), ``version``, ``tokens`` (a JSON list with an entry a tensor: class name, sha256 of the tensor's bytes,
fingerprint, recipe, metrics, licence, provenance) and ``sha256`` over the text of ``tokens``.

The checksums find damage and careless changes.  They are no signature: whoever writes a file on purpose can make them fit.
What a stranger's file says of itself is therefore a claim, and its class names are checked as any input is.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from token_store.contract import InvalidTokenError
from token_store.safetensors_file import MAX_HEADER_BYTES, MAX_TENSORS, Tensor, parse, serialize, strict_json
from token_store.tensor_codec import check_embedding

FORMAT = "ovam-tokens"
VERSION = "1"

#: SPDX's word for "nobody said".
NO_LICENCE = "NOASSERTION"
#: Longest class name, and longest text anywhere else in an entry.
MAX_NAME = 500
MAX_TEXT = 1000
#: Most values of an entry's mappings together.
MAX_VALUES = 20_000

_HEX = re.compile(r"[0-9a-f]{64}")
_LICENCE = re.compile(r"[A-Za-z0-9.+() -]{1,100}")
_ABSOLUTE = re.compile(r"[/\\]|~[/\\]|[A-Za-z]:[/\\]")
_FIELDS = {"tensor", "class_name", "sha256", "fingerprint", "recipe", "metrics", "licence", "provenance"}


@dataclass(frozen=True, slots=True)
class SharedToken:
    """A token outside of any store.

    Attributes:
        class_name: 1 to 500 characters, no path that leads elsewhere, nothing that a terminal would obey.
        fingerprint: ``{"space": hex, "model": str, "settings": {...}}``.
        embedding: (n >= 2, E) finite float32, row 0 the background.
        recipe, metrics, provenance: JSON objects; metrics are what the exporter measured.
        licence: an SPDX expression such as ``CC-BY-4.0``.
    """

    class_name: str
    fingerprint: Mapping[str, Any]
    embedding: np.ndarray
    recipe: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    licence: str = NO_LICENCE
    provenance: Mapping[str, Any] = field(default_factory=dict)


def pack(tokens: Sequence[SharedToken]) -> bytes:
    """The file of one token or many.  Equal tokens give equal bytes.

    Raises:
        InvalidTokenError: a token that :func:`unpack` would refuse, none at all, or too many for one file.
    """
    if not 1 <= len(tokens) <= MAX_TENSORS:
        raise InvalidTokenError(f"{len(tokens)} tokens were to be exported; 1 to {MAX_TENSORS} fit one file.")
    tensors: dict[str, np.ndarray] = {}
    entries = []
    for number, token in enumerate(tokens):
        values = check_embedding(token.embedding).astype("<f4")
        entry = {
            "tensor": f"token.{number}",
            "class_name": token.class_name,
            "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
            "fingerprint": dict(token.fingerprint),
            "recipe": dict(token.recipe),
            "metrics": dict(token.metrics),
            "licence": token.licence,
            "provenance": dict(token.provenance),
        }
        tensors[f"token.{number}"] = values
        entries.append(entry)
    text = json.dumps(entries, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    metadata = {"format": FORMAT, "version": VERSION, "tokens": text, "sha256": _digest(text)}
    data = serialize(tensors, metadata)
    if int.from_bytes(data[:8], "little") > MAX_HEADER_BYTES:
        raise InvalidTokenError(
            f"{len(tokens)} tokens with their figures do not fit one file; export them to a folder instead."
        )
    unpack(data)  # nothing leaves that would be refused elsewhere
    return data


def is_shared(metadata: Mapping[str, str]) -> bool:
    """Whether a file's metadata say that it was exported here."""
    return metadata.get("format") == FORMAT


def unpack(data: bytes) -> list[SharedToken]:
    """The tokens of a file, every one checked.

    Raises:
        InvalidTokenError: the bytes are no such file, were changed, or hold anything that a token may not; the sentence
            says what.
    """
    metadata, tensors = parse(data)
    if not is_shared(metadata):
        _refuse(f"its metadata do not say that it is a file of format {FORMAT!r}")
    if metadata.get("version") != VERSION:
        _refuse(f"it has version {metadata.get('version', 'none')[:20]!r} of the format; {VERSION!r} is read here")
    text = metadata.get("tokens", "")
    if not _equal_text(metadata.get("sha256", ""), text):
        _refuse("its metadata do not match their sha256; they were changed or damaged")
    entries = strict_json(text, "list of tokens")
    if not isinstance(entries, list) or not all(isinstance(e, dict) and set(e) == _FIELDS for e in entries):
        _refuse(f"its list of tokens is no list of objects with {', '.join(sorted(_FIELDS))}")
    named = [e["tensor"] for e in entries if isinstance(e["tensor"], str)]
    if len(named) != len(entries) or len(set(named)) != len(named) or set(named) != set(tensors) or not named:
        _refuse("its list of tokens and its tensors do not name each other one to one")
    return [_token(entry, tensors[entry["tensor"]]) for entry in entries]


def check_class_name(name: Any) -> str:
    """The name, if a stranger may give it to a class.

    Raises:
        InvalidTokenError: empty, too long, with control characters or invisible direction marks, or a path that leads
            elsewhere (``../x``, ``/x``, ``C:\\x``).
    """
    if not isinstance(name, str) or not name.strip():
        _refuse("a class name is missing")
    if len(name) > MAX_NAME:
        _refuse(f"a class name has {len(name)} characters; at most {MAX_NAME} are allowed")
    if not _printable(name):
        _refuse(f"the class name {name[:60]!r} holds control characters")
    if _ABSOLUTE.match(name) or any(part.strip() in (".", "..") for part in re.split(r"[/\\]", name)):
        _refuse(f"the class name {name[:60]!r} is a path that leads elsewhere")
    return name


def check_licence(licence: Any) -> str:
    """Raises InvalidTokenError unless it looks like an SPDX expression (``CC-BY-4.0``, ``MIT OR Apache-2.0``)."""
    if not isinstance(licence, str) or not _LICENCE.fullmatch(licence):
        raise InvalidTokenError(
            f"The licence {str(licence)[:60]!r} is no SPDX expression such as CC-BY-4.0; letters, digits, blanks, . + - and "
            "brackets are allowed, at most 100."
        )
    return licence


def _token(entry: Mapping[str, Any], tensor: Tensor) -> SharedToken:
    name = check_class_name(entry["class_name"])
    if tensor.dtype != "F32":
        _refuse(f"the embedding of {name[:60]!r} has type {tensor.dtype}; F32 is needed")
    if hashlib.sha256(tensor.data).hexdigest() != entry["sha256"]:
        _refuse(f"the embedding of {name[:60]!r} does not match its sha256; it was changed or damaged")
    try:
        embedding = check_embedding(tensor.floats())
    except InvalidTokenError as error:
        raise InvalidTokenError(f"The file is refused: class {name[:60]!r}: {error}") from None
    fingerprint = _mapping(entry, "fingerprint")
    if not isinstance(fingerprint.get("space"), str) or not _HEX.fullmatch(fingerprint["space"]):
        _refuse(f"the fingerprint of {name[:60]!r} names no embedding space (64 hex digits)")
    return SharedToken(
        class_name=name,
        fingerprint=fingerprint,
        embedding=embedding,
        recipe=_mapping(entry, "recipe"),
        metrics=_mapping(entry, "metrics"),
        licence=check_licence(entry["licence"]),
        provenance=_mapping(entry, "provenance"),
    )


def _mapping(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A JSON object whose texts are short and printable."""
    value = entry[name]
    if not isinstance(value, dict):
        _refuse(f"its {name} is no JSON object")
    waiting, seen = [value], 0
    while waiting:
        one: Any = waiting.pop()
        seen += 1
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str) and (len(one) > MAX_TEXT or not _printable(one)):
            _refuse(f"its {name} holds a text that is too long or has control characters")
        elif isinstance(one, int) and abs(one) >= 1 << 63:
            _refuse(f"its {name} holds a number of more than 63 bits")
        if seen + len(waiting) > MAX_VALUES:
            _refuse(f"its {name} holds more than {MAX_VALUES} values")
    return value


def _printable(text: str) -> bool:
    """No control characters, halves of surrogate pairs, or marks that turn the direction of what follows."""
    return not any(unicodedata.category(c) in ("Cc", "Cs") or c in _DIRECTIONS for c in text)


_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _equal_text(digest: str, text: str) -> bool:
    try:
        return digest == _digest(text)
    except UnicodeEncodeError:
        return False


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse(reason: str) -> NoReturn:
    raise InvalidTokenError(f"The file is refused: {reason}.")
