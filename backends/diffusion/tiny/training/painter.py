"""Stage ``painter``: learn to paint while reading stays as it is. Resumable, CPU or GPU.

The UNet alone is trained: it denoises plain pictures (pool kind ``alone``) at every noise level, and where pictures are read
(little noise, no prompt) it is held to what the UNet that it started from makes of scenes: the queries of every
cross-attention layer that maps are made of, and queries and keys of the self-attention that spreads them. Text encoder and
the keys of words do not move, so words and recipes mean the same after as before.

Starts from the run folder's ``unet-meaning.pt`` or, after ``warm``, from ``unet-start.pt``; leaves ``unet-painter.pt``.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import distributed
from .batches import Batch, Pool
from .export import newest_checkpoint, trained_models
from .grounding import Grounding, KeepQueries, alphas_cumulative, run_eagerly
from .library import Library
from .muon import Muon, is_matrix
from .painting import Painting
from .sources import run_folder
from .text import hidden_states
from .tokenizer import LENGTH
from .unet import ALONE, CLOSE, LARGE, SAVE_EVERY, START, Options
from .vocabulary import Speaker

CHECKPOINT, AFTER = "unet-painter.pt", "unet-meaning.pt"
RATE, WARM = 8e-4, 60
PICTURES = 16  # pairs of plain pictures a step and process
HELD: dict[int, int] = {CLOSE: 2, LARGE: 1}  # pairs of scenes a step that reading is held at, by their size
TIMES = (40, 61)  # noise levels of reading
HOLD = 6.0  # weight of the relative error of what is read
FAINT = 0.1  # of the mean variance: channels that vary less than this hardly count
LAST = 0.7  # share of the minutes after which reading is held at every step instead of every second one


class Witness:
    """Attention processor that keeps what reading uses of a layer: queries, and the keys of self-attention."""

    def __init__(self, inner: KeepQueries) -> None:
        self.inner = inner
        self.kept: list[Tensor] = []

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor:
        out = self.inner(attn, hidden_states, encoder_hidden_states)
        self.kept = [self.inner.queries]
        if encoder_hidden_states is None:
            self.kept.append(attn.to_k(hidden_states))
        return out


def witness(net: Grounding) -> list[Witness]:
    """Witnesses of the layers that maps are made of and of the self-attention at the cells' own resolution, in place."""
    layers = [*net.layers, *(b.attn1 for a in net.unet.up_blocks[-1].attentions for b in a.transformer_blocks)]
    found = []
    for layer in layers:
        layer.set_processor(Witness(layer.processor))
        found.append(layer.processor)
    return found


class Holding:
    """Relative error of what ``net`` reads of scenes, against the UNet as it was ``before``; 0 is no change."""

    def __init__(self, net: Grounding, before: Grounding, silence: Tensor, rng: np.random.Generator) -> None:
        self.net, self.before, self.silence, self.rng = net, before.requires_grad_(False), silence, rng
        self.now, self.then = witness(net), witness(self.before)
        self.alphas = alphas_cumulative().to(silence.device)

    def __call__(self, batch: Batch) -> Tensor:
        latents = batch.latents.to(self.silence.device)
        time_ = torch.from_numpy(self.rng.integers(*TIMES, len(latents))).to(latents.device)
        alpha = self.alphas[time_].view(-1, 1, 1, 1)
        noised = alpha.sqrt() * latents + (1 - alpha).sqrt() * torch.randn_like(latents)
        noised = noised.contiguous(memory_format=torch.channels_last)
        condition = self.silence.expand(len(latents), -1, -1)
        with torch.no_grad():
            run_eagerly(self.before, noised, time_, condition)
        run_eagerly(self.net, noised, time_, condition)
        errors = []
        for now, then in zip(self.now, self.then, strict=True):
            for mine, wanted in zip(now.kept, then.kept, strict=True):
                mine, wanted = mine.float(), wanted.float()
                axes = (0, wanted.dim() - 2)  # scenes and pixels; each channel counts the same, a faint one too
                spread = (wanted - wanted.mean(axes, keepdim=True)).square().mean(axes, keepdim=True)
                errors.append(((mine - wanted).square() / (spread + FAINT * spread.mean())).mean())
        return torch.stack(errors).mean()


class Painter:
    """Model, optimizers, moving average and checkpoint of one process."""

    def __init__(self, rank: int, world: int, device: str, rate: float) -> None:
        self.rank, self.world, self.device, self.rate = rank, world, device, rate
        self.base = newest_checkpoint(names=(AFTER, START))
        weights = self.base["average"]
        unet, self.text = trained_models(self.base)
        self.text.to(device).requires_grad_(False)
        self.net = Grounding(unet).to(device)
        with torch.no_grad():
            self.net.log_steps.copy_(weights["net.log_steps"])
            self.net.log_gain.copy_(weights["net.log_gain"])
        self.net.unet.to(memory_format=torch.channels_last)
        self.before = copy.deepcopy(self.net)  # not what a resumed run has become
        for parameter in (self.net.log_steps, self.net.log_gain, *(layer.to_k.weight for layer in self.net.layers)):
            parameter.requires_grad_(False)
        named = [(n, p) for n, p in self.net.named_parameters() if p.requires_grad]
        self.names, self.parameters = [n for n, _ in named], [p for _, p in named]
        deep = [is_matrix(n, p) for n, p in named]
        self.muon = Muon([p for p, d in zip(self.parameters, deep, strict=True) if d], rank, world)
        self.adam = torch.optim.AdamW(
            [p for p, d in zip(self.parameters, deep, strict=True) if not d], rate, betas=(0.9, 0.98), weight_decay=0.0
        )
        self.average = [p.detach().clone() for p in self.parameters]
        self.step, self.pictures, self.minutes = 0, 0, 0.0
        self.path = run_folder() / CHECKPOINT

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one."""
        if not self.path.exists():
            return
        state = torch.load(self.path, map_location=self.device, weights_only=True)
        with torch.no_grad():
            for name, p in zip(self.names, self.parameters, strict=True):
                p.copy_(state["weights"][name])
        self.average = [state["average"][f"net.{n}"].clone() for n in self.names]
        for buffer, saved in zip(self.muon.buffers, state["muon"], strict=True):
            buffer.copy_(saved)
        self.adam.load_state_dict(state["adam"])
        self.step, self.pictures, self.minutes = state["step"], state["pictures"], state["minutes"]

    def save(self) -> None:
        """Atomically, from the first process. ``average`` has every weight under the names that ``export`` expects."""
        if self.rank:
            return
        moved = {f"net.{n}": v for n, v in zip(self.names, self.average, strict=True)}
        state = {
            "step": self.step,
            "pictures": self.pictures,
            "minutes": self.minutes,
            "muon": self.muon.buffers,
            "adam": self.adam.state_dict(),
            "weights": {n: p.detach() for n, p in zip(self.names, self.parameters, strict=True)},
            "average": {**self.base["average"], **moved},
        }
        torch.save(state, self.path.with_suffix(".tmp"))
        self.path.with_suffix(".tmp").replace(self.path)

    def run(self, minutes: float) -> None:
        """Train until ``minutes`` of training, over all calls, are used up; the rate falls to 0 by then."""
        rng = np.random.default_rng([self.rank, self.step])
        torch.manual_seed(1000 * self.step + self.rank)
        library = Library()
        speaker = Speaker(library, self.text)
        said = speaker.tokenizer([""], padding="max_length", max_length=LENGTH, return_tensors="pt")["input_ids"]
        silence = hidden_states(self.text, said.to(self.device)).float()
        holding = Holding(self.net, self.before, silence, rng)
        painting = Painting(self.net, speaker, rng)
        pool = Pool(rng, Options.wordless_share, self.rank, self.world)
        clock, saved, log, held = distributed.Clock(self.minutes), time.time(), [], 0.0
        while True:
            self.minutes = distributed.mean_of(clock.minutes())
            if self.minutes >= minutes:
                break
            rate = self.rate * min(1, (self.step + 1) / WARM) * 0.5 * (1 + math.cos(math.pi * self.minutes / minutes))
            for group in self.adam.param_groups:
                group["lr"] = rate
            self.adam.zero_grad(set_to_none=False)
            if self.step % 2 == 0 or self.minutes > LAST * minutes:
                size = LARGE if rng.random() < 0.5 and pool.has(LARGE) else CLOSE
                error = holding(pool.draw(HELD[size], size))
                (HOLD * error).backward()
                held = float(error.detach())
            paint = painting(pool.alone(PICTURES, ALONE))
            paint.backward()
            distributed.average_gradients(self.parameters, 1.0)
            self.adam.step()
            self.muon.step(rate)
            self.step += 1
            self.pictures += 2 * PICTURES * self.world
            keep = min(0.998, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - keep)
            log.append((float(paint.detach()), held))
            if self.rank == 0 and (self.step % 50 == 0 or self.step in (5, 20)):
                mean = np.mean(log, 0)
                print(
                    f"{self.step} {self.pictures} {self.minutes:.1f}min {rate:.1e} paint {mean[0]:.4f} held {mean[1]:.5f}",
                    flush=True,
                )
                log = []
            if time.time() - saved > SAVE_EVERY:
                self.save()
                saved = time.time()
        self.save()


def worker(minutes: float, device: str, rate: float) -> None:
    rank, world = distributed.join(device)
    painter = Painter(rank, world, device, rate)
    painter.resume()
    painter.run(minutes)
    distributed.wait()
    if rank == 0:
        print("DONE", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=80, help="of training, over all calls")
    parser.add_argument("--rate", type=float, default=RATE, help="the highest of the schedule")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=2, help="on a CPU; a GPU has one")
    a = parser.parse_args()
    if a.device != "cpu" or a.processes == 1 or distributed.is_worker():
        torch.set_num_threads(1)
        worker(a.minutes, a.device, a.rate)
    else:
        distributed.start("backends.diffusion.tiny.training.painter", sys.argv[1:], a.processes)


if __name__ == "__main__":
    main()
