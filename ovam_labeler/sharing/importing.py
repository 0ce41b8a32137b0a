"""From a stranger's file to versions of this store: everything is checked before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backends.contract import Attributor, ReadsInputVectors
from ovam_labeler.embedding_space import differences, refusal
from ovam_labeler.errors import BadRequestError
from ovam_labeler.sharing.plausibility import Reference, implausible
from token_store import exchange
from token_store.contract import InvalidTokenError, TokenStore
from token_store.entities import AliasChange, NewTokenVersion, Scope, TokenVersion
from token_store.exchange import NO_LICENCE, SharedToken
from token_store.registry_contract import CANDIDATE
from token_store.safetensors_file import parse, read_bytes
from token_store.textual_inversion import unpack_inversion

#: Most files of a folder.
MAX_FILES = 2000
#: Every imported version gets this alias, and waits as the candidate where no other one does.
IMPORTED = "imported"


@dataclass(frozen=True, slots=True)
class Incoming:
    """A token of a file, checked as far as that goes without the store.

    Attributes:
        kind: ``"token"`` (exported by this program) or ``"textual-inversion"``.
        file_sha256: hex, over the file it came in.
    """

    token: SharedToken
    kind: str
    file_sha256: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an incoming token; see :class:`token_store.entities.Added`."""

    version: TokenVersion
    fresh: bool
    warnings: tuple[str, ...]
    moved: AliasChange | None = None


def read_path(path: Path, attributor: Attributor, *, name: str | None = None) -> list[Incoming]:
    """The tokens of a file, or of all ``.safetensors`` files of a folder, all of them valid for this model.

    Args:
        name: the class a file's one token is to have here; needed where a textual inversion does not name itself.

    Raises:
        InvalidTokenError: any token of any file is refused; names the file.
        BadRequestError: no files; a name for more than one token.
    """
    found: list[Incoming] = []
    for file in _files(path):
        try:
            found += _read_file(file, attributor, name)
        except InvalidTokenError as error:
            raise InvalidTokenError(f"{file.name!r}: {error}") from error
    if name is not None:
        if len(found) != 1:
            raise BadRequestError(f"--as names one class, but {path} holds {len(found)} tokens; leave it out.")
        found = [replace(found[0], token=replace(found[0].token, class_name=exchange.check_class_name(name)))]
    names = [one.token.class_name for one in found]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise BadRequestError(f"{path} holds the class {twice!r} more than once; import one of them at a time.")
    return found


def check_plausible(incoming: Sequence[Incoming], reference: Reference) -> None:
    """Refuse embeddings that look like no class of this model; see :mod:`ovam_labeler.sharing.plausibility`.

    Raises:
        InvalidTokenError: names the class and what speaks against it.
    """
    for one in incoming:
        reason = implausible(one.token.embedding, reference)
        if reason is not None:
            raise InvalidTokenError(
                f"The token of {one.token.class_name!r} is refused: {reason}; --no-plausibility takes it all the same."
            )


def keep(
    store: TokenStore,
    incoming: Sequence[Incoming],
    scope: Scope,
    attributor: Attributor,
    *,
    activate: bool,
    who: str,
) -> list[Imported]:
    """Store checked tokens as ``unproven`` versions, aliased ``imported``, and ``active`` where the user says so: all in
    one transaction, so that a crash or a full disk leaves none of them.

    Otherwise a version becomes the class's ``candidate``, unless another one waits as that already.

    What the file says of its figures is kept as ``claimed``: evidence is only what was measured here.
    """
    kinds = " and a ".join(sorted({one.kind for one in incoming}))
    added = store.add_bundle(
        scope,
        {one.token.class_name: _new(one, who) for one in incoming},
        aliases=(IMPORTED,),
        vacant_aliases=() if activate else (CANDIDATE,),
        activate=activate,
        who=who,
        why=f"imported from a {kinds} file",
    )
    return [
        Imported(done.version, done.fresh, _differences(one.token, attributor), done.moved)
        for one, done in zip(incoming, added, strict=True)
    ]


def _new(one: Incoming, who: str) -> NewTokenVersion:
    token = one.token
    metrics: dict[str, Any] = {"reason": "Imported; nothing was measured here yet."}
    if token.metrics:
        metrics["claimed"] = dict(token.metrics)
    return NewTokenVersion(
        fingerprint=token.fingerprint,
        embedding=token.embedding,
        recipe=token.recipe,
        metrics=metrics,
        created_by=who,
        state="unproven",
        provenance={
            "kind": "imported",
            "form": one.kind,
            "licence": token.licence,
            "origin": dict(token.provenance),
            "file_sha256": one.file_sha256,
        },
    )


def _read_file(path: Path, attributor: Attributor, name: str | None) -> list[Incoming]:
    data = read_bytes(path)
    digest = hashlib.sha256(data).hexdigest()
    metadata, _ = parse(data)
    if not exchange.is_shared(metadata):
        return [Incoming(_from_inversion(data, path, attributor, name), "textual-inversion", digest)]
    tokens = exchange.unpack(data)
    for token in tokens:
        _check_space(token, attributor)
    return [Incoming(token, "token", digest) for token in tokens]


def _check_space(token: SharedToken, attributor: Attributor) -> None:
    """Refuse a token of another embedding space, by a sentence that says which."""
    mine = attributor.fingerprint
    reason = refusal(token.fingerprint, mine)
    if reason is not None:
        raise InvalidTokenError(
            f"The token of {token.class_name!r} is refused: {reason}; set OVAM_MODEL to its model, or learn the class here."
        )
    if token.embedding.shape[1] != attributor.embedding_size:
        raise InvalidTokenError(
            f"The token of {token.class_name!r} is {token.embedding.shape[1]} wide; embeddings of {mine.model!r} are "
            f"{attributor.embedding_size} wide."
        )


def _from_inversion(data: bytes, path: Path, attributor: Attributor, name: str | None) -> SharedToken:
    """A textual inversion becomes a token of the loaded model by going through its text encoder."""
    inversion = unpack_inversion(data)
    mine = attributor.fingerprint
    if not isinstance(attributor, ReadsInputVectors):
        raise InvalidTokenError(f"Textual inversions cannot be read with the base model {mine.model!r}.")
    if inversion.vectors.shape[1] != attributor.input_size:
        raise InvalidTokenError(
            f"The textual inversion is {inversion.vectors.shape[1]} wide ({inversion.family}); the text encoder of "
            f"{mine.model!r} takes {attributor.input_size}."
        )
    given = name or inversion.name
    if not given:
        raise InvalidTokenError("The textual inversion does not say what it is called; name its class with --as NAME.")
    return SharedToken(
        class_name=exchange.check_class_name(given),
        fingerprint={
            "space": mine.space,
            "model": mine.model,
            "parts": dict(mine.parts),
            "settings": dict(mine.settings),
        },
        embedding=attributor.from_input_vectors(inversion.vectors),
        recipe={"start": "textual-inversion", "tokens": 1 + len(inversion.vectors)},
        licence=NO_LICENCE,
        provenance={"lineage": "textual-inversion", "vectors": len(inversion.vectors)},
    )


def _differences(token: SharedToken, attributor: Attributor) -> tuple[str, ...]:
    """One sentence where the token was learned with other reading settings, which is allowed."""
    settings = token.fingerprint.get("settings")
    found = differences(token.fingerprint, attributor.fingerprint) if settings else []
    if not found:
        return ()
    return (
        f"{token.class_name!r} was learned with other reading settings ({'; '.join(found)}): it may fit less well here.",
    )


def _files(path: Path) -> list[Path]:
    """A folder's own ``.safetensors`` files, links left out; else the file itself."""
    if not path.is_dir():
        return [path]
    try:
        inside = sorted(p for p in path.iterdir() if p.suffix == ".safetensors" and not p.is_symlink())
    except OSError as error:
        raise BadRequestError(f"The folder {path} cannot be read: {error.strerror}.") from error
    if not 1 <= len(inside) <= MAX_FILES:
        raise BadRequestError(f"The folder {path} holds {len(inside)} .safetensors files; 1 to {MAX_FILES} are read.")
    return inside
