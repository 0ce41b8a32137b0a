"""Corrections given directly, image and mask in hand (CLI, scripts): the "tool" ``direct``.

The upright pixels are kept in the data folder, so that a capture lost from the cache can be read again; masks are stored
decoded.
"""

from __future__ import annotations

from pathlib import Path

from ovam_labeler.domain import LoadedImage, Truth
from ovam_labeler.kept_images import KeptImages
from ovam_labeler.translate import translate_errors
from token_store.contract import TokenStore
from token_store.entities import Correction

TOOL = "direct"


class DirectDecoder:
    """Implements :class:`ovam_labeler.services.CorrectionDecoder` for corrections given directly."""

    def __init__(self, folder: Path, store: TokenStore) -> None:
        """Args: folder of the kept images, made when needed."""
        self._images = KeptImages(folder)
        self._store = store

    def keep(self, image: LoadedImage) -> Path:
        """See :meth:`ovam_labeler.kept_images.KeptImages.keep`."""
        return self._images.keep(image)

    def image_of(self, correction: Correction) -> tuple[LoadedImage, str]:
        """The kept image.  Raises FetchError: it was deleted from the data folder, or is damaged."""
        sha256 = str(correction.payload.get("image_sha256", ""))
        return self._images.load(sha256, f"Correction {correction.id}"), ""

    def truths_of(self, correction: Correction, image: LoadedImage) -> tuple[list[Truth], list[str]]:
        """The masks as they were given."""
        with translate_errors():
            masks = self._store.correction_masks([correction.id])
        return [Truth(m.label, "positive" if m.kind == "positive" else "negative", m.mask, m.ignore) for m in masks], []
