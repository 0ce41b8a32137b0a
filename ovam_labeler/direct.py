"""Corrections given directly, image and mask in hand (CLI, scripts): the "tool" ``direct``.

The upright pixels are kept in the data folder as PNG under the image's identity, so that a capture lost from the cache
can be read again; masks are stored decoded.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import numpy as np
from PIL import Image

from ovam_labeler.domain import LoadedImage, Truth
from ovam_labeler.errors import FetchError
from ovam_labeler.image_source import encode_png
from ovam_labeler.translate import translate_errors
from token_store.contract import TokenStore
from token_store.entities import Correction

TOOL = "direct"

_SHA256 = re.compile(r"[0-9a-f]{64}")


class DirectDecoder:
    """Implements :class:`ovam_labeler.services.CorrectionDecoder` for corrections given directly."""

    def __init__(self, folder: Path, store: TokenStore) -> None:
        """Args: folder of the kept images, made when needed."""
        self._folder = folder
        self._store = store

    def keep(self, image: LoadedImage) -> Path:
        """Store an image's pixels, durably; one that is there is left.  Raises StorageFullError."""
        path = self._path(image.sha256)
        if path.is_file():
            return path
        temporary = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
        with translate_errors():
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                with open(temporary, "wb") as file:
                    file.write(encode_png(image.pixels))
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
        return path

    def image_of(self, correction: Correction) -> tuple[LoadedImage, str]:
        """The kept image.  Raises FetchError: it was deleted from the data folder, or is damaged."""
        sha256 = str(correction.payload.get("image_sha256", ""))
        if not _SHA256.fullmatch(sha256):
            raise FetchError(f"Correction {correction.id} names no image.")
        try:
            # Written by this program from pixels within the bounds of its time: no bound is checked again.
            with Image.open(self._path(sha256), formats=("PNG",)) as file:
                pixels = np.array(file.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise FetchError(
                f"The image of correction {correction.id} is gone from {self._folder}: {error}."
            ) from error
        return LoadedImage(pixels, sha256), ""

    def truths_of(self, correction: Correction, image: LoadedImage) -> tuple[list[Truth], list[str]]:
        """The masks as they were given."""
        with translate_errors():
            masks = self._store.correction_masks([correction.id])
        return [Truth(m.label, "positive" if m.kind == "positive" else "negative", m.mask, m.ignore) for m in masks], []

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.png"
