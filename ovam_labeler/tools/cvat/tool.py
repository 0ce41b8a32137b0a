"""CVAT as a labeling tool: joins labels, shapes and corrections behind the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from ovam_labeler.domain import LoadedImage, Proposal, Truth
from ovam_labeler.kept_images import KeptImages
from ovam_labeler.settings import Settings
from ovam_labeler.tools.contract import API_VERSION, ParsedConfig
from ovam_labeler.tools.cvat import corrections
from ovam_labeler.tools.cvat.labels import parse_labels
from ovam_labeler.tools.cvat.writing import write_shapes
from token_store.entities import Correction, NewCorrection, Scope, ServedPrediction

#: How a correction names its picture, which is kept in the data folder: CVAT's frames have no address without a login.
KEPT = "kept:"


class CvatTool:
    """Implements :class:`ovam_labeler.tools.contract.LabelingTool` and :class:`ovam_labeler.services.CorrectionDecoder`.

    Args:
        settings: of the process; None reads them from the environment at the first image.
    """

    name = corrections.TOOL
    api_version = API_VERSION

    def __init__(self, settings: Settings | None = None) -> None:
        self._given = settings

    @cached_property
    def settings(self) -> Settings:
        return self._given or Settings()

    @cached_property
    def images(self) -> KeptImages:
        """The frames that corrections were made on."""
        return KeptImages(self.settings.data_dir / "images")

    def parse_config(self, config: str) -> ParsedConfig:
        """See :func:`~ovam_labeler.tools.cvat.labels.parse_labels`."""
        return parse_labels(config)

    def write(
        self, proposals: Sequence[Proposal], config: ParsedConfig, image_size: tuple[int, int], version: str
    ) -> Mapping[str, Any]:
        """See :func:`~ovam_labeler.tools.cvat.writing.write_shapes`."""
        return write_shapes(proposals, config, image_size, version)

    def read_correction(
        self, event: Mapping[str, Any], scope: Scope, served: ServedPrediction | None
    ) -> NewCorrection | None:
        """See :func:`~ovam_labeler.tools.cvat.corrections.read_event`."""
        return corrections.read_event(event, scope, served)

    def truths_of(self, correction: Correction, image: LoadedImage) -> tuple[list[Truth], list[str]]:
        """See :func:`~ovam_labeler.tools.cvat.corrections.truths_of`."""
        return corrections.truths_of(correction, image)

    def image_of(self, correction: Correction) -> tuple[LoadedImage, str]:
        """The kept frame; CVAT's tasks have no prompt.  Raises FetchError: it is gone from the data folder."""
        name = correction.image_ref.removeprefix(KEPT)
        return self.images.load(name, f"Correction {correction.id}"), ""
