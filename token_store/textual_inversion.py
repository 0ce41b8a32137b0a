"""Textual-inversion files (arXiv 2208.01618) as diffusers and the AUTOMATIC1111 web UI write them, safetensors only.

A file holds one concept: k vectors in the *input* space of a text encoder.  Its width tells the model family.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from token_store.contract import InvalidTokenError
from token_store.safetensors_file import Tensor, parse

#: Most vectors of a concept: more than any text encoder's window.
MAX_VECTORS = 75
#: Input widths of text encoders, for people.
FAMILIES = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 1280: "the second text encoder of SDXL"}

#: Names under which tools store the vectors when they do not use the concept's own name.
_ANONYMOUS = {"emb_params", "*", "string_to_param.*", "string_to_param", "embedding", "embeddings", "learned_embeds"}
_SDXL = {"clip_l", "clip_g"}
_EXTRA = {"string_to_token.*", "string_to_token"}


@dataclass(frozen=True, slots=True)
class Inversion:
    """A concept learned by textual inversion.

    Attributes:
        name: what the file calls it, without angle brackets; ``""`` where it does not say.
        vectors: (k, W) finite float32, k >= 1.
    """

    name: str
    vectors: np.ndarray

    @property
    def family(self) -> str:
        """Model family that the width points to, for messages."""
        width = self.vectors.shape[1]
        return FAMILIES.get(width, f"a text encoder {width} wide")


def unpack_inversion(data: bytes) -> Inversion:
    """The concept of a file.

    Raises:
        InvalidTokenError: no safetensors file, not one concept, or vectors that are no finite (k, W) numbers.
    """
    metadata, tensors = parse(data)
    name, tensor = _concept(metadata, tensors)
    vectors = tensor.floats()
    if vectors.ndim == 1:
        vectors = vectors[None]
    if vectors.ndim != 2 or not 1 <= len(vectors) <= MAX_VECTORS or vectors.shape[1] < 1:
        _refuse(f"its vectors have shape {tensor.shape}; (k, width) with k of 1 to {MAX_VECTORS} is needed")
    if not np.isfinite(vectors).all():
        _refuse("its vectors hold NaN or infinite numbers; all must be finite")
    return Inversion(re.sub(r"[<>]", "", name).strip(), np.ascontiguousarray(vectors))


def _concept(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> tuple[str, Tensor]:
    if _SDXL & set(tensors):
        _refuse("it is a textual inversion for SDXL (clip_l, clip_g), whose two text encoders are not read here")
    found = {name: tensor for name, tensor in tensors.items() if name not in _EXTRA}
    if len(found) != 1:
        _refuse(f"it holds {len(found)} tensors; a textual inversion holds the vectors of one concept")
    ((name, tensor),) = found.items()
    return (metadata.get("name", "") if name in _ANONYMOUS else name), tensor


def _refuse(reason: str) -> NoReturn:
    raise InvalidTokenError(f"The file is refused: {reason}.")
