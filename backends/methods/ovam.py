"""The paper's own method: open-vocabulary attention maps (Eq. 5), on request weighed by self-attention (Eq. 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from backends.attention.self_attention import ALPHA_TOKENS, ALPHA_WORDS, ReceivedMaps, weigh
from backends.contract import Attributor, Capture, ClassQuery, Needs


@dataclass(frozen=True, slots=True)
class Ovam:
    """Mask method "ovam".

    Attributes:
        name: as registered in the entry point group ``ovam_labeler.methods``.
        self_attention: multiply each map by A_alpha (Eq. 8-9), alpha 0.85 for the words of a prompt and 0.95 for two
            tokens, as in section 4.1.  Needs self-attention at the latent's own resolution in the capture.
    """

    name: str = "ovam"
    self_attention: bool = False

    def needs(self, attributor: Attributor) -> Needs:
        """Queries, and self-attention at the latent grid where it is used."""
        return Needs(queries=True, self_attention=(1,) if self.self_attention else ())

    def maps(self, attributor: Attributor, capture: Capture, queries: Sequence[ClassQuery]) -> torch.Tensor:
        """(classes, height, width) float32 in 0..1.

        Raises:
            BackendError: self-attention is used and the capture holds none.
        """
        maps = attributor.maps(capture, queries)
        if not self.self_attention or not len(queries):
            return maps
        received = ReceivedMaps.from_tensors(capture.tensors, capture.info.layout).finest()
        words, tokens = weigh(maps, received, ALPHA_WORDS), weigh(maps, received, ALPHA_TOKENS)
        pairs = torch.tensor([_two_rows(q) for q in queries], device=maps.device)
        return torch.where(pairs[:, None, None], tokens, words)


def _two_rows(query: ClassQuery) -> bool:
    """Whether the class competes with the background alone, as learned tokens do and words of models read in pairs.

    The paper's two alphas belong to the two scales of such maps and of maps of a whole prompt.
    """
    return all(tokens.embeddings.shape[0] == 2 for tokens in query)


#: What the entry points name.
OVAM = Ovam()
OVAM_SELF_ATTENTION = Ovam(name="ovam-self-attention", self_attention=True)
