"""Stage ``unet``: train UNet and text layers together, in phases, resumable from the last checkpoint.

``words`` binds words (denoising, one softmax over words). ``tokens`` adds the maps as they are read at test time, and
episodes that make a token from one scene. ``finer`` goes on from any weights folder (stage ``warm``) with closer and
larger scenes, lookalikes and the peaks of maps. The schedule is in minutes of training time, counted over restarts, or
in scenes (``ablation``).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPTextModel

from . import distributed
from .batches import Pool
from .grounding import Grounding, Recorded
from .library import Library
from .muon import Muon, is_matrix
from .objective import Objective, Weights
from .painting import Painting
from .sources import run_folder
from .tuner import Tuner
from .vocabulary import Speaker

PAIRS, GPU_PAIRS = (8,), (64, 128)  # scene pairs a step and process; of several the faster
SAVE_EVERY = 120.0  # seconds
CLOSE, LARGE, ALONE = 160, 224, 128  # pixels a side of the pool's scenes
FINER_RATE = 5e-4
PAINTING = 0.6  # the painting gradient's length, in lengths of the grounding gradient
START = "unet-start.pt"


@dataclass(frozen=True)
class Options:
    """What a run is told: device, scene pairs a step and process (of several the faster), share of the pairs without words, seed.

    ``most``: minutes of training after which this call saves and ends, whatever the phase still has. ``rate``: the highest
    of the phase ``finer``. ``paint``: plain pictures for each pair that are denoised at full weight besides.
    ``record``: replay CUDA graphs.
    """

    device: str = "cpu"
    pairs: tuple[int, ...] = PAIRS
    wordless_share: float = 0.22
    seed: int = 0
    most: float = math.inf
    rate: float = FINER_RATE
    paint: float = 0.0
    record: bool = False


@dataclass(frozen=True)
class Phase:
    """One stretch of training, ``minutes`` or, if given, ``scenes`` long.

    The rate follows a cosine over ``horizon`` lengths of the phase, cut off after one.
    """

    name: str
    minutes: float
    horizon: float
    rate: float
    warm: int
    weights: Weights
    ramp: int = 150
    late_share: float = 0.0  # share of the steps at LARGE pixels in the last third; before it a quarter of that
    close: int = CLOSE
    scenes: int = 0

    def size(self, done: float, step: int) -> int:
        """Pixels a side of a step's scenes, the same in all processes. ``done``: share of the phase, 0..1."""
        share = self.late_share * (1.0 if done > 2 / 3 else 0.25)
        return LARGE if np.random.default_rng(step).random() < share else self.close


def phases(words: float, tokens: float, finer: float, rate: float = FINER_RATE) -> list[Phase]:
    """The phases that have minutes. ``rate``: the last one's highest."""
    some = [
        Phase("words", words, 3.5, 1.5e-3, 100, Weights(False)),
        Phase("tokens", tokens, 1.0, 1.1e-3, 60, Weights(True, absent=3.0)),
        Phase("finer", finer, 1.0, rate, 150, Weights(True, absent=3.0, times=(20, 80), high=0.125), 50, 0.35),
    ]
    return [phase for phase in some if phase.minutes > 0]


class Trainer:
    """Model, optimizers, moving average and checkpoint of one process."""

    def __init__(self, phase: Phase, rank: int, world: int, options: Options) -> None:
        self.phase, self.rank, self.world, self.options = phase, rank, world, options
        seed = options.seed
        torch.manual_seed(seed)
        self.net = Grounding().to(options.device)
        self.net.unet.to(memory_format=torch.channels_last)
        self.text = CLIPTextModel.from_pretrained(run_folder() / "text_encoder", attn_implementation="eager").train()
        self.text.to(options.device)
        self.text.get_input_embeddings().weight.requires_grad_(False)
        named = [(f"net.{n}", p) for n, p in self.net.named_parameters()]
        named += [(f"text.{n}", p) for n, p in self.text.named_parameters() if p.requires_grad]
        self.names, self.parameters = [n for n, _ in named], [p for _, p in named]
        for p in self.parameters:
            p.grad = torch.zeros_like(p)  # else the first gradient would be a recording's own memory
        matrices = [(n, p) for n, p in named if n.startswith("net.unet.") and is_matrix(n, p)]
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
        self.step, self.scenes, self.minutes = 0, 0, 0.0
        self.path = run_folder() / f"unet-{phase.name}.pt"

    def load(self, previous: Path | None) -> None:
        """Continue this phase, or begin it from the averaged weights of the previous one."""
        if self.path.exists():
            state = torch.load(self.path, map_location=self.options.device, weights_only=True)
            weights = state["weights"]
            self.average = [state["average"][n] for n in self.names]
            for buffer, saved in zip(self.muon.buffers, state["muon"], strict=True):
                buffer.copy_(saved)
            self.adam.load_state_dict(state["adam"])
            self.step, self.scenes, self.minutes = state["step"], state["scenes"], state["minutes"]
        elif previous is not None:
            weights = torch.load(previous, map_location=self.options.device, weights_only=True)["average"]
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
            "scenes": self.scenes,
            "minutes": self.minutes,
            "muon": self.muon.buffers,
            "adam": self.adam.state_dict(),
            "weights": {n: p.detach() for n, p in zip(self.names, self.parameters, strict=True)},
            "average": dict(zip(self.names, self.average, strict=True)),
        }
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.path)

    def keep(self, every: float) -> None:
        """A copy of the average every so many minutes, for the learning curve."""
        copy = self.path.with_name(f"{self.path.stem}-{int(self.minutes // every * every):03d}min.pt")
        if not self.rank and self.minutes >= every and not copy.exists():
            torch.save({"average": dict(zip(self.names, self.average, strict=True)), "step": self.step}, copy)

    def run(self) -> None:
        """Train until the phase's minutes are used up."""
        library = Library()
        # another order of scenes after each restart
        seed = self.options.seed
        rng = np.random.default_rng([seed, self.rank, self.step])
        torch.manual_seed(seed * 1000 + self.rank + 1 + self.step)
        pool = Pool(rng, self.options.wordless_share, self.rank, self.world)
        speaker = Speaker(library, self.text)
        run = Recorded(self.net) if self.options.record else None
        objective, painting = Objective(self.net, speaker, library, rng, run), Painting(self.net, speaker, rng, run)
        clock, saved, log = distributed.Clock(self.minutes), time.time(), []
        begun, first_scenes, cpu = self.minutes, self.scenes, time.process_time()
        tuner = Tuner(self.options.pairs, self.options.device)
        while True:
            pairs = tuner.pairs
            self.minutes = distributed.mean_of(clock.minutes())
            done = self._done()
            if done >= 1 or self.minutes >= begun + self.options.most:
                break
            rate = self._rate(done)
            ramp = min(1.0, (self.step + 1) / self.phase.ramp) if self.phase.weights.full else 1.0
            size = self.phase.size(done, self.step) if tuner.settled else self.phase.close
            size = size if pool.has(size) else self.phase.close  # large scenes may still be in the making
            weights = self.phase.weights
            weights = replace(
                weights, ramp=ramp, words=max(weights.words, 4 * pairs), rivals=max(weights.rivals, pairs)
            )
            loss = objective(pool.draw(pairs, size), weights)
            self.adam.zero_grad(set_to_none=False)
            loss.backward()
            norm = distributed.average_gradients(self.parameters, 1.0)
            if self.options.paint and pool.has(ALONE, ("alone",)):
                objective.log["paint"] = self._add_painting(
                    painting(pool.alone(int(self.options.paint * pairs / 2), ALONE))
                )
            self.adam.step()
            self.muon.step(rate)
            tuner.step()
            self.step += 1
            self.scenes += 2 * pairs * self.world
            torch._foreach_lerp_(
                self.average, [p.detach() for p in self.parameters], 1 - min(0.998, (1 + self.step) / (10 + self.step))
            )
            log.append(objective.log | {"gn": norm})
            if self.rank == 0 and (self.step % 50 == 0 or self.step in (5, 20)):
                spent = (time.process_time() - cpu) / (self.scenes - first_scenes) * self.world * 1e3
                figures = " ".join(f"{k} {_mean([entry[k] for entry in log if k in entry]):.3f}" for k in log[-1])
                steps = [round(v, 2) for v in self.net.log_steps.exp().tolist()]
                print(
                    f"{self.phase.name} {self.step} {self.scenes} {self.minutes:.1f}min "
                    f"{spent:.1f}ms {rate:.1e} {figures} steps {steps}",
                    flush=True,
                )
                log = []
            if time.time() - saved > SAVE_EVERY:
                self.save()
                self.keep(every=20.0)
                saved = time.time()
        self.save()

    def _add_painting(self, loss: torch.Tensor) -> torch.Tensor:
        """Add the gradient of painting, made as long as that of grounding, which would drown it otherwise."""
        grounding = [p.grad.clone() for p in self.parameters if p.grad is not None]
        length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grounding)))
        self.adam.zero_grad(set_to_none=False)
        loss.backward()
        norm = distributed.average_gradients(self.parameters, math.inf)
        own = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_mul_(own, PAINTING * length / (norm + 1e-6))
        torch._foreach_add_(own, grounding)
        return loss.detach()

    def _done(self) -> float:
        """Share of the phase that is behind, 0..1."""
        if self.phase.scenes:
            return self.scenes / self.phase.scenes
        return self.minutes / self.phase.minutes

    def _rate(self, done: float) -> float:
        done = min(1.0, done / self.phase.horizon)
        rate = (
            self.phase.rate
            * min(1, (self.step + 1) / self.phase.warm)
            * (0.03 + 0.97 * (0.5 + 0.5 * math.cos(math.pi * done)))
        )
        for group in self.adam.param_groups:
            group["lr"] = rate * group["scale"]
        return rate


def _mean(values: list[torch.Tensor]) -> float:
    return float(torch.stack(values).nanmean())


def worker(minutes: tuple[float, float, float], options: Options) -> None:
    rank, world = distributed.join(options.device)
    if options.device != "cpu":
        torch.set_float32_matmul_precision("high")
    start = run_folder() / START
    previous = start if start.exists() else None
    for phase in phases(*minutes, options.rate):
        trainer = Trainer(phase, rank, world, options)
        trainer.load(previous)
        trainer.run()
        distributed.wait()
        previous = trainer.path
    if rank == 0:
        print("DONE", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words-minutes", type=float, default=20)
    parser.add_argument("--tokens-minutes", type=float, default=55)
    parser.add_argument("--finer-minutes", type=float, default=80)
    parser.add_argument("--wordless-share", type=float, default=0.22)
    parser.add_argument(
        "--pairs",
        type=int,
        nargs="+",
        help=f"scene pairs a step and process, of several the faster ({PAIRS}; on a GPU {GPU_PAIRS})",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=2, help="on a CPU; a GPU has one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--paint", type=float, default=0, help="plain pictures for each pair, denoised at full weight")
    parser.add_argument("--finer-rate", type=float, default=FINER_RATE, help="lower for a short run")
    parser.add_argument("--record", action="store_true", help="replay CUDA graphs")
    parser.add_argument("--most-minutes", type=float, default=math.inf, help="of this call; then save and end")
    a = parser.parse_args()
    pairs = tuple(a.pairs or ()) or (PAIRS if a.device == "cpu" else GPU_PAIRS)
    if a.device != "cpu" or a.processes == 1 or distributed.is_worker():
        torch.set_num_threads(1)
        minutes = a.words_minutes, a.tokens_minutes, a.finer_minutes
        options = Options(a.device, pairs, a.wordless_share, a.seed, a.most_minutes, a.finer_rate, a.paint, a.record)
        worker(minutes, options)
    else:
        distributed.start("backends.diffusion.tiny.training.unet", sys.argv[1:], a.processes)


if __name__ == "__main__":
    main()
