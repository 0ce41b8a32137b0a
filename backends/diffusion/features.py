"""Hidden states of a UNet's up blocks, which methods train small decoders or compare pixels on (``Needs.features``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from backends.contract import BackendError

PREFIX = "features."
LAYOUT_KEY = "features"


@dataclass(frozen=True, slots=True)
class FeatureMaps:
    """Hidden states of one image as they leave the up blocks, by latent down-sampling factor.

    Attributes:
        maps: factor (1 = the latent grid) -> (steps, channels, height, width) floating tensor.
    """

    maps: Mapping[int, torch.Tensor]

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Tensors by name for ``Capture.tensors``."""
        return {f"{PREFIX}{factor}": tensor.contiguous() for factor, tensor in self.maps.items()}

    def layout(self) -> dict[str, Any]:
        """JSON-serialisable part of ``CaptureInfo.layout``."""
        return {LAYOUT_KEY: sorted(self.maps)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], layout: Mapping[str, Any]) -> FeatureMaps:
        """Inverse of the two methods above.

        Raises:
            BackendError: the capture holds no features, or a tensor is missing.
        """
        factors = layout.get(LAYOUT_KEY)
        if not factors:
            raise BackendError("The capture holds no features; read the image again with Needs(features=(1,)).")
        missing = [f for f in factors if f"{PREFIX}{f}" not in tensors]
        if missing:
            raise BackendError(f"The capture lacks its features at factor {missing[0]}; read the image again.")
        return cls({int(f): tensors[f"{PREFIX}{f}"] for f in factors})
