"""Identity of an embedding space: SHA-256 over the content of text encoder, vocabulary and key projections.

Two copies of a model in different folders, or in other shards, have the same identity; a model with one weight changed has
another.  Names and paths do not enter it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from backends.attention.queries import KeyProjection
from backends.contract import BackendError

#: What the parts of an embedding space are called in a refusal.
TEXT_ENCODER, TOKENIZER, KEYS = "text encoder", "tokenizer", "key projections"


def space_of(
    text_weights: Iterable[tuple[str, torch.Tensor]],
    vocabulary: Mapping[str, int],
    projections: Mapping[str, KeyProjection],
) -> str:
    """SHA-256 (hex) of an embedding space; see :func:`space_and_parts`."""
    return space_and_parts(text_weights, vocabulary, projections)[0]


def space_and_parts(
    text_weights: Iterable[tuple[str, torch.Tensor]],
    vocabulary: Mapping[str, int],
    projections: Mapping[str, KeyProjection],
) -> tuple[str, dict[str, str]]:
    """SHA-256 (hex) of an embedding space, and of each of its parts by name.

    Args:
        text_weights: (name, tensor) of the text encoder, any order and dtype; each is hashed as float32.
        vocabulary: piece -> id.
        projections: by layer name.
    """
    total = hashlib.sha256(b"ovam-space-1")
    parts = {name: hashlib.sha256(name.encode()) for name in (TEXT_ENCODER, TOKENIZER, KEYS)}

    def add(part: str, content: bytes) -> None:
        total.update(content)
        parts[part].update(content)

    digests = {
        normal_name(name): _digest("text", normal_name(name), tensor)
        for name, tensor in text_weights
        if not name.endswith("position_ids")  # a constant that older transformers saved
    }
    for name in sorted(digests):
        add(TEXT_ENCODER, digests[name])
    add(TOKENIZER, json.dumps(sorted(vocabulary.items())).encode())
    for name in sorted(projections):
        add(KEYS, _digest(f"to_k/{projections[name].heads}", name, projections[name].weight))
    return total.hexdigest(), {name: part.hexdigest() for name, part in parts.items()}


def normal_name(name: str) -> str:
    """A text encoder weight's name without the prefix that older transformers wrote."""
    return name.removeprefix("text_model.")


def file_weights(files: Sequence[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of safetensors files, one tensor after the other.

    Raises:
        BackendError: a file is damaged.
    """
    for file in files:
        try:
            with safe_open(str(file), framework="pt", device="cpu") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - safe_open objects are no mappings
                    yield key, tensors.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise BackendError(f"Weights {file} cannot be read: {' '.join(str(error).split())[:200]}") from error


def file_vocabulary(folder: Path) -> dict[str, int]:
    """piece -> id of a saved tokenizer, whichever form it was saved in.

    Raises:
        BackendError: the folder holds none of the forms.
    """
    whole, table = folder / "tokenizer.json", folder / "vocab.json"
    try:
        if whole.is_file():
            saved = json.loads(whole.read_text(encoding="utf-8"))
            found = dict(saved["model"]["vocab"])
            found.update({added["content"]: added["id"] for added in saved.get("added_tokens", [])})
            return found
        if table.is_file():
            return dict(json.loads(table.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackendError(f"The tokenizer in {folder} cannot be read: {type(error).__name__} {error}.") from error
    raise BackendError(f"The tokenizer in {folder} has neither tokenizer.json nor vocab.json.")


def _digest(kind: str, name: str, tensor: torch.Tensor) -> bytes:
    content = tensor.detach().to(device="cpu", dtype=torch.float32).contiguous()
    one = hashlib.sha256(f"{kind}/{name}/{tuple(content.shape)}/".encode())
    one.update(content.numpy().data if content.numel() else b"")
    return one.digest()
