"""OVAM without its softmax: a map is linear in the token, so steps and heads fold before the one product.

Not the paper's map, whose softmax sits in each step and head: docs/performance.md has the quality measured for this mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from backends.contract import Attributor, BackendError, Capture, ClassQuery, LogitSource, Needs


@dataclass(frozen=True, slots=True)
class OvamLinear:
    """Mask method "ovam-linear": the sigmoid of each class's mean logit over the background's."""

    name: str = "ovam-linear"

    def needs(self, attributor: Attributor) -> Needs:
        """Queries."""
        return Needs(queries=True)

    def maps(self, attributor: Attributor, capture: Capture, queries: Sequence[ClassQuery]) -> torch.Tensor:
        """(classes, height, width) float32 in 0..1.

        Raises:
            BackendError: the attributor offers no logits.
        """
        if not isinstance(attributor, LogitSource):
            raise BackendError(f"Method {self.name!r} needs logits, which this backend does not offer; use 'ovam'.")
        if not len(queries):
            return attributor.maps(capture, queries)
        return torch.sigmoid(attributor.logits(capture, queries))


#: What the entry point names.
OVAM_LINEAR = OvamLinear()
