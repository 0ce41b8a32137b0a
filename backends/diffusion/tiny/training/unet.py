"""Stage ``unet``: train UNet and text layers together, in two phases, resumable from the last checkpoint.

Phase 1 binds words (denoising, one softmax over words). Phase 2 adds the maps as they are read at test time, and
episodes that make a token from one scene. The schedule is in minutes of training time, counted over restarts.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPTextModel

from . import distributed
from .batches import Pool
from .grounding import Grounding
from .library import Library
from .muon import Muon
from .objective import Objective, Weights
from .sources import run_folder
from .vocabulary import Speaker

PAIRS = 8  # scene pairs a step and process
SAVE_EVERY = 120.0  # seconds


@dataclass(frozen=True)
class Phase:
    """One stretch of training. The rate follows a cosine over ``horizon`` minutes, cut off after ``minutes``."""

    name: str
    minutes: float
    horizon: float
    rate: float
    warm: int
    full: bool
    absent: float


def phases(first: float, second: float) -> tuple[Phase, Phase]:
    return (
        Phase("words", first, first * 3.5, 1.5e-3, 100, False, 4.0),
        Phase("tokens", second, second, 1.1e-3, 60, True, 3.0),
    )


class Trainer:
    """Model, optimizers, moving average and checkpoint of one process."""

    def __init__(self, phase: Phase, rank: int, world: int, seed: int, share: float) -> None:
        self.phase, self.rank, self.world = phase, rank, world
        torch.manual_seed(seed)
        self.net = Grounding()
        self.net.unet.to(memory_format=torch.channels_last)
        self.text = CLIPTextModel.from_pretrained(run_folder() / "text_encoder", attn_implementation="eager").train()
        self.text.get_input_embeddings().weight.requires_grad_(False)
        named = [(f"net.{n}", p) for n, p in self.net.named_parameters()]
        named += [(f"text.{n}", p) for n, p in self.text.named_parameters() if p.requires_grad]
        self.names, self.parameters = [n for n, _ in named], [p for _, p in named]
        matrices = [
            (n, p)
            for n, p in named
            if n.startswith("net.unet.")
            and p.dim() > 1
            and not any(part in n for part in ("conv_in", "conv_out", "time_emb"))
        ]
        self.muon = Muon([p for _, p in matrices], rank, world)
        taken = {n for n, _ in matrices}
        groups = [
            {
                "params": [p for n, p in named if n not in taken and n.startswith(part) and (p.dim() > 1) == deep],
                "weight_decay": 0.01 if deep and part == "net." else 0.0,
                "scale": scale,
            }
            for part, scale in (("net.", 1.0), ("text.", 0.3))
            for deep in (True, False)
        ]
        self.adam = torch.optim.AdamW(groups, phase.rate, betas=(0.9, 0.98), fused=True)
        self.average = [p.detach().clone() for p in self.parameters]
        self.step, self.minutes = 0, 0.0
        self.path = run_folder() / f"unet-{phase.name}.pt"
        self.seed, self.share = seed, share

    def load(self, previous: Path | None) -> None:
        """Continue this phase, or begin it from the averaged weights of the previous one."""
        if self.path.exists():
            state = torch.load(self.path, weights_only=True)
            weights = state["weights"]
            self.average = [state["average"][n] for n in self.names]
            for buffer, saved in zip(self.muon.buffers, state["muon"], strict=True):
                buffer.copy_(saved)
            self.adam.load_state_dict(state["adam"])
            self.step, self.minutes = state["step"], state["minutes"]
        elif previous is not None:
            weights = torch.load(previous, weights_only=True)["average"]
            self.average = [weights[n].clone() for n in self.names]
        else:
            return
        with torch.no_grad():
            for name, p in zip(self.names, self.parameters, strict=True):
                p.copy_(weights[name])

    def save(self) -> None:
        """Atomically, from the first process."""
        if self.rank:
            return
        state = {
            "step": self.step,
            "minutes": self.minutes,
            "muon": self.muon.buffers,
            "adam": self.adam.state_dict(),
            "weights": {n: p.detach() for n, p in zip(self.names, self.parameters, strict=True)},
            "average": dict(zip(self.names, self.average, strict=True)),
        }
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.path)

    def run(self) -> None:
        """Train until the phase's minutes are used up."""
        library = Library()
        # another order of scenes after each restart
        rng = np.random.default_rng([self.seed, self.rank, self.step])
        torch.manual_seed(self.seed * 1000 + self.rank + 1 + self.step)
        pool = Pool(rng, self.share)
        objective = Objective(self.net, Speaker(library, self.text), library.base, rng)
        before, begin, saved, log = self.minutes, time.time(), time.time(), []
        first_step, cpu = self.step, time.process_time()
        while True:
            self.minutes = distributed.mean_of(before + (time.time() - begin) / 60)
            if self.minutes >= self.phase.minutes:
                break
            rate = self._rate()
            ramp = min(1.0, (self.step + 1) / 150) if self.phase.full else 1.0
            loss = objective(pool.draw(PAIRS), Weights(self.phase.full, ramp, absent=self.phase.absent))
            self.adam.zero_grad(set_to_none=False)
            loss.backward()
            norm = distributed.average_gradients(self.parameters, 1.0)
            self.adam.step()
            self.muon.step(rate)
            self.step += 1
            torch._foreach_lerp_(
                self.average, [p.detach() for p in self.parameters], 1 - min(0.998, (1 + self.step) / (10 + self.step))
            )
            log.append(objective.log | {"gn": norm})
            if self.rank == 0 and (self.step % 50 == 0 or self.step in (5, 20)):
                spent = (time.process_time() - cpu) / (self.step - first_step) / PAIRS / 2 * 1e3
                figures = " ".join(f"{k} {np.nanmean([entry[k] for entry in log]):.3f}" for k in log[-1])
                steps = [round(v, 2) for v in self.net.log_steps.exp().tolist()]
                print(
                    f"{self.phase.name} {self.step} {self.step * PAIRS * 2 * self.world} {self.minutes:.1f}min "
                    f"{spent:.1f}ms {rate:.1e} {figures} steps {steps}",
                    flush=True,
                )
                log = []
            if time.time() - saved > SAVE_EVERY:
                self.save()
                saved = time.time()
        self.save()

    def _rate(self) -> float:
        done = min(1.0, self.minutes / self.phase.horizon)
        rate = (
            self.phase.rate
            * min(1, (self.step + 1) / self.phase.warm)
            * (0.03 + 0.97 * (0.5 + 0.5 * math.cos(math.pi * done)))
        )
        for group in self.adam.param_groups:
            group["lr"] = rate * group["scale"]
        return rate


def worker(first: float, second: float, seed: int, share: float) -> None:
    rank, world = distributed.join()
    previous = None
    for phase in phases(first, second):
        trainer = Trainer(phase, rank, world, seed, share)
        trainer.load(previous)
        trainer.run()
        torch.distributed.barrier()
        previous = trainer.path
    if rank == 0:
        print("DONE", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words-minutes", type=float, default=20)
    parser.add_argument("--tokens-minutes", type=float, default=55)
    parser.add_argument("--wordless-share", type=float, default=0.22)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    if distributed.is_worker():
        worker(a.words_minutes, a.tokens_minutes, a.seed, a.wordless_share)
    else:
        distributed.start(
            "backends.diffusion.tiny.training.unet",
            [
                f"--words-minutes={a.words_minutes}",
                f"--tokens-minutes={a.tokens_minutes}",
                f"--wordless-share={a.wordless_share}",
                f"--seed={a.seed}",
            ],
        )


if __name__ == "__main__":
    main()
