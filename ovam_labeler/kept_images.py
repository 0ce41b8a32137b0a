"""Images that come without a place to fetch them from again, kept in the data folder as PNG under their identity."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import numpy as np
from PIL import Image

from ovam_labeler.domain import LoadedImage
from ovam_labeler.errors import FetchError
from ovam_labeler.image_source import encode_png
from ovam_labeler.translate import translate_errors

_SHA256 = re.compile(r"[0-9a-f]{64}")


class KeptImages:
    """Thread-safe, also between processes: a file is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        """Args: folder of the images, made when needed."""
        self._folder = folder

    def keep(self, image: LoadedImage) -> Path:
        """Store an image's upright pixels, durably; one that is there is left.  Raises StorageFullError."""
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

    def load(self, sha256: str, whose: str) -> LoadedImage:
        """A kept image.

        Args:
            whose: begins the sentence of an error, e.g. ``"Correction 7"``.

        Raises:
            FetchError: no identity, the file was deleted from the data folder, or it is damaged.
        """
        if not _SHA256.fullmatch(sha256):
            raise FetchError(f"{whose} names no image.")
        try:
            # Written by this program from pixels within the bounds of its time: no bound is checked again.
            with Image.open(self._path(sha256), formats=("PNG",)) as file:
                pixels = np.array(file.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise FetchError(f"{whose}: its image is gone from {self._folder}: {error}.") from error
        return LoadedImage(pixels, sha256)

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.png"
