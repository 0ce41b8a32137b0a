"""Label Studio as a labeling tool: joins config, predictions, corrections and images behind the contract."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from ovam_labeler.domain import LoadedImage, Proposal, Truth
from ovam_labeler.image_source import load_image
from ovam_labeler.settings import Settings
from ovam_labeler.tools.contract import API_VERSION, ParsedConfig
from ovam_labeler.tools.label_studio import corrections
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.connections import DEFAULT, Connections
from ovam_labeler.tools.label_studio.label_config import parse_label_config
from ovam_labeler.tools.label_studio.predictions import write_prediction
from token_store.entities import Correction, NewCorrection, Scope, ServedPrediction

#: References of fetched images that are remembered with their identity.
KNOWN_IMAGES = 4096


class LabelStudioTool:
    """Implements :class:`ovam_labeler.tools.contract.LabelingTool` and :class:`ovam_labeler.services.CorrectionDecoder`.

    Args:
        settings: of the process; None reads them from the environment at the first image.
    """

    name = corrections.TOOL
    api_version = API_VERSION

    def __init__(self, settings: Settings | None = None) -> None:
        self._given = settings
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def settings(self) -> Settings:
        return self._given or Settings()

    @cached_property
    def connections(self) -> Connections:
        """Every Label Studio this server knows."""
        return Connections(self.settings)

    @property
    def client(self) -> LabelStudioClient:
        """The default connection's Label Studio; also fetches images from elsewhere, without credentials."""
        return self.connections.client()

    def parse_config(self, config: str) -> ParsedConfig:
        """See :func:`~ovam_labeler.tools.label_studio.label_config.parse_label_config`."""
        return parse_label_config(config)

    def write(
        self, proposals: Sequence[Proposal], config: ParsedConfig, image_size: tuple[int, int], version: str
    ) -> Mapping[str, Any]:
        """See :func:`~ovam_labeler.tools.label_studio.predictions.write_prediction`."""
        return write_prediction(proposals, config, image_size, version)

    def read_correction(
        self, event: Mapping[str, Any], scope: Scope, served: ServedPrediction | None
    ) -> NewCorrection | None:
        """See :func:`~ovam_labeler.tools.label_studio.corrections.read_event`, which also says why it is None."""
        return corrections.read_event(event, scope, served).correction

    def truths_of(self, correction: Correction, image: LoadedImage) -> tuple[list[Truth], list[str]]:
        """See :func:`~ovam_labeler.tools.label_studio.corrections.truths_of`."""
        return corrections.truths_of(correction, image)

    def image_of(self, correction: Correction) -> tuple[LoadedImage, str]:
        """The corrected task's image and its ``prompt`` or ``""``."""
        task = correction.payload.get("task")
        prompt = task.get("prompt") if isinstance(task, Mapping) else None
        image = self.load_image(correction.image_ref, correction.scope.connection)
        return image, prompt if isinstance(prompt, str) else ""

    def load_image(self, reference: str, connection: str = DEFAULT) -> LoadedImage:
        """Fetch and decode an image as a task of a connection names it.

        Raises:
            FetchError: it cannot be fetched; says what to do.
            BadImageError: no readable image, or out of bounds.
        """
        data = self.connections.client(connection).fetch_image(reference)
        image = load_image(data, max_pixels=self.settings.max_image_pixels, max_bytes=self.settings.max_image_bytes)
        with self._lock:
            key = _short(reference, connection)
            self._known[key] = image.sha256
            self._known.move_to_end(key)
            while len(self._known) > KNOWN_IMAGES:
                self._known.popitem(last=False)
        return image

    def known_image(self, reference: str, connection: str = DEFAULT) -> str | None:
        """The identity of the image last fetched under a reference by this process; None where it fetched none."""
        with self._lock:
            return self._known.get(_short(reference, connection))


def _short(reference: str, connection: str) -> bytes:
    """A reference may be a data: URI of megabytes, and two Label Studios use the same paths."""
    return hashlib.sha256(f"{connection}\0{reference}".encode("utf-8", "surrogatepass")).digest()
