"""The denoising loss alone, at any noise and full weight, on pictures that say what they show: learning to paint.

Apart from the grounding objective because it needs many times its samples and a fifth of its time for each.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from .batches import Batch
from .grounding import Grounding, Run, alphas_cumulative, run_eagerly
from .text import TEMPLATES, hidden_states
from .tokenizer import LENGTH
from .vocabulary import Speaker

UNSPOKEN = 0.12  # share of the pictures without a prompt, for classifier-free guidance


class Painting:
    """Callable on batches of plain pictures (pool kind ``alone``)."""

    def __init__(self, net: Grounding, speaker: Speaker, rng: np.random.Generator, run: Run | None = None) -> None:
        self.run, self.speaker, self.rng = run or partial(run_eagerly, net), speaker, rng
        self.device = net.log_gain.device
        self.alphas = alphas_cumulative().to(self.device)

    def __call__(self, batch: Batch) -> Tensor:
        """Error of the noiseless latents that the v-prediction stands for, mean over scenes and uniform noise levels.

        So most of it is what only the prompt tells: what the object looks like. Errors of v count fine detail at little
        noise as much.
        """
        latents, rng = batch.to(self.device).latents, self.rng
        count = len(latents)
        prompts = [self._prompt(batch.concepts[b].tolist()) for b in range(count)]
        distinct = list(dict.fromkeys(prompts))
        ids = self.speaker.tokenizer(
            distinct, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
        )["input_ids"].to(self.device)
        place = {prompt: i for i, prompt in enumerate(distinct)}
        which = torch.tensor([place[prompt] for prompt in prompts], device=self.device)
        # evenly spread levels: less variance than independent ones
        time = ((torch.arange(count) + float(rng.random())) / count * 1000).long().clamp(max=999)
        time = time[torch.randperm(count)].to(self.device)
        alpha = self.alphas[time].view(-1, 1, 1, 1)
        noise = torch.randn_like(latents)
        noised = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        with torch.autocast(self.device.type, torch.bfloat16):
            conditions = hidden_states(self.speaker.encoder, ids).float()[which]
        out, _ = self.run(noised.contiguous(memory_format=torch.channels_last), time, conditions)
        return (((out - velocity) ** 2).mean((1, 2, 3)) * (1 - alpha.flatten())).mean()

    def _prompt(self, concepts: list[int]) -> str:
        """What the picture shows, in one of a few forms; often empty."""
        names = [self.speaker.name(c, self.rng) for c in concepts if c >= 0]
        if not names or self.rng.random() < UNSPOKEN:
            return ""
        kind = self.rng.random()
        template = "a photograph of a {}" if kind < 0.5 else "{}" if kind < 0.7 else str(self.rng.choice(TEMPLATES))
        return template.format(" and a ".join(names))
