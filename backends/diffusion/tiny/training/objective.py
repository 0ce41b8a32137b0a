"""The losses of one batch: denoising, words, and episodes in which a token is made on one scene and judged on others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .batches import Batch
from .grounding import Grounding, Run, alphas_cumulative, cross_entropy, mean_of, run_eagerly, to_grid
from .library import Library
from .pool import NOTHING, WORDLESS, disguised
from .vocabulary import Encoded, Speaker

RANK_GAIN = 1.5  # sharpens the odds between words


@dataclass(frozen=True)
class Weights:
    """What counts how much. ``full`` adds the two-token maps and the episodes (phase 2), ramped in.

    ``ground`` and ``episodes`` switch these parts off for the ablation: without the first denoising is all.
    ``rank``: at an object's pixels its own word's map shall beat every other word's, and a token's map the other tokens';
    ``whole``: the same for the mean over all of an object's pixels. ``peak``: the highest 2 % of a map
    shall say whether the word is there. Of ``words`` candidates ``rivals`` are lookalikes and words of near meaning.
    ``times``: the range of noise levels where maps are read; a share ``high`` of the scenes takes any level.
    """

    full: bool
    ramp: float = 1.0
    denoise: float = 0.3
    absent: float = 4.0
    rank: float = 1.0
    whole: float = 0.5
    peak: float = 0.4
    words: int = 64
    rivals: int = 24
    times: tuple[int, int] = (0, 80)
    high: float = 0.2
    spoken: float = 0.3
    ground: bool = True
    episodes: bool = True


class Objective:
    """Callable on batches; ``log`` holds the figures of the last call, on the device: to read them is to wait for it.

    ``run``: what runs the UNet in bf16, :func:`grounding.run_eagerly` by default.
    """

    def __init__(
        self,
        net: Grounding,
        speaker: Speaker,
        library: Library,
        rng: np.random.Generator,
        run: Run | None = None,
    ) -> None:
        self.net, self.speaker, self.rng = net, speaker, rng
        self.base, self.known, self.conflicts = np.array(library.base), np.array(library.known), library.conflicts
        near = speaker.near(library.base)
        self.rivals = {c: np.concatenate([library.alike[c], near[c]]) for c in library.base}
        self.device = net.log_gain.device
        self.alphas = alphas_cumulative().to(self.device)
        self.run = run or partial(run_eagerly, net)
        self.log: dict[str, Tensor] = {}

    def __call__(self, batch: Batch, w: Weights) -> Tensor:
        """Total loss."""
        rng, count = self.rng, len(batch.latents)
        spoken = (rng.random(count) < w.spoken) & ~batch.wordless.numpy()
        device, batch = self.device, batch.to(self.device)
        words = self._candidates(batch, w)
        prompts = ["", *(self.speaker.scene_prompt(batch.concepts[b].tolist(), rng) for b in np.flatnonzero(spoken))]
        text = self.speaker(words, prompts, rng)
        which = torch.zeros(count, dtype=torch.long)
        which[torch.from_numpy(spoken)] = torch.arange(1, len(prompts))
        which = which.to(device)
        # mostly little noise (where maps are read), some pairs at any level
        time = torch.randint(*w.times, (count,))
        high = 2 * max(1, round(count / 2 * w.high))
        time[-high:] = torch.randint(0, 1000, (high,))
        time = time.to(device)
        alpha = self.alphas[time].view(-1, 1, 1, 1)
        noise = torch.randn_like(batch.latents)
        noised = alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * batch.latents
        out, queries = self.run(noised.contiguous(memory_format=torch.channels_last), time, text.conditions[which])
        snr = (alpha / (1 - alpha)).flatten()
        denoise = (((out.float() - velocity) ** 2).mean((1, 2, 3)) * snr.clamp(max=5) / (snr + 1)).mean()
        scene = alpha.sqrt().flatten() * (time < 600)  # how far a scene's maps can be trusted
        low = time < w.times[1]
        self.log = {"den": denoise.detach()}
        if not w.ground:
            return w.denoise * denoise
        grounding, maps = self._words(batch, words, text, queries, scene, low, w)
        loss = w.denoise * denoise + grounding
        if w.full and w.episodes:
            loss = loss + w.ramp * self._episodes(batch, words, text, queries, scene, low, w, maps)
        return loss

    def _candidates(self, batch: Batch, w: Weights) -> list[int]:
        """The batch's own concepts, rivals of them, and random others, none in conflict with an own one."""
        own = list(dict.fromkeys(batch.concepts[batch.concepts >= 0].tolist()))
        taken = {*own, *(o for c in own for o in self.conflicts[c])}
        chosen = list(own)
        near = np.concatenate([self.rivals[c] for c in own]) if own else self.base
        for pool, most in ((near, min(w.words, len(own) + w.rivals)), (self.known, w.words), (self.base, w.words)):
            for c in self.rng.permutation(pool).tolist():
                if len(chosen) >= most:
                    break
                if c not in taken:
                    taken.add(c)
                    chosen.append(c)
        return chosen

    def _fair(self, batch: Batch, words: list[int]) -> Tensor:
        """(B, W + 1): 1 where a word may be judged in a scene, else 0. The last one is "thing"."""
        place = {c: k for k, c in enumerate(words)}
        fair = np.ones((len(batch.concepts), len(words) + 1), np.float32)
        for row, some in zip(fair, batch.concepts.tolist(), strict=True):
            if WORDLESS in some:  # nobody knows what is shown: only "thing" may be judged
                row[:-1] = 0
                continue
            shown = {c if c >= 0 else disguised(c) for c in some if c != NOTHING}
            unfair = set().union(*(self.conflicts[c] for c in shown)) | shown
            row[[place[c] for c in unfair if c in place and c not in some]] = 0
        return torch.from_numpy(fair)

    def _words(
        self,
        batch: Batch,
        words: list[int],
        text: Encoded,
        queries: list[Tensor],
        scene: Tensor,
        low: Tensor,
        w: Weights,
    ) -> tuple[Tensor, Tensor]:
        """Loss of the words' maps and of "thing" (the last word); returns the words' targets too."""
        net, n = self.net, len(words)
        targets, foreground = batch.targets(words), batch.foreground
        wanted = torch.cat([targets, foreground], 1)
        present = (wanted.sum((2, 3)) > 0).float()
        trust = scene[:, None] * self._fair(batch, words).to(scene.device)
        if w.full:
            scores = net.logits(queries, text.pieces - text.start)
            layers = to_grid([torch.sigmoid(s).mean(1) @ text.average for s in scores])
            pair = mean_of(layers)
            folded = net.log_gain.exp() * mean_of(to_grid([s.mean(1) @ text.average for s in scores]))
        else:
            folded = net.fold(net.logits(queries, text.mean - text.start))
        loss = 0.5 * w.ramp * balanced(torch.sigmoid(folded), wanted, present, trust, w.absent)
        share = torch.cat([1 - foreground, targets], 1)
        share = share / share.sum(1, keepdim=True).clamp(min=1)
        pixels = 1 + 1.5 * foreground[:, 0]
        rows = scene * ~batch.wordless
        fair = folded[:, :-1].masked_fill(trust[:, :n, None, None] == 0, -20)
        competing = F.log_softmax(torch.cat([torch.zeros_like(folded[:, :1]), fair], 1), 1)
        folded_ce = ((-(share * competing).sum(1) * pixels).mean((1, 2)) * rows).mean()
        loss = loss + folded_ce
        judged = torch.sigmoid(folded)
        if w.full:
            judgeable = trust[:, :n] * rows[:, None]
            rank, whole_rank = ranks(pair[:, :-1], targets, judgeable)
            each = balanced_each(layers, wanted, present, trust, w.absent)
            whole = balanced(pair, wanted, present, trust, w.absent)
            peak = peaks(pair, present, trust)
            loss = loss + w.ramp * (whole + 0.5 * each + w.rank * rank + w.whole * whole_rank + w.peak * peak)
            self.log |= {"pair": whole.detach(), "rank": rank.detach(), "peak": peak.detach()}
            judged = pair
        with torch.no_grad():
            seen = (foreground[:, 0] > 0.8) & (low & ~batch.wordless)[:, None, None]
            hit = folded[:, :-1].argmax(1) == targets.argmax(1)
            self.log |= {
                "cf": folded_ce.detach(),
                "accf": (hit & seen).sum() / seen.sum(),
                "wiou": overlap(judged[:, :n], targets, (present[:, :n] > 0) & low[:, None]),
                "tiou": overlap(judged[:, n:], foreground, low[:, None]),
            }
        return loss, targets

    def _episodes(
        self,
        batch: Batch,
        words: list[int],
        text: Encoded,
        queries: list[Tensor],
        scene: Tensor,
        low: Tensor,
        w: Weights,
        targets: Tensor,
    ) -> Tensor:
        """Make a token per scene by gradient steps, judge it on the partner scene and, as absent, on the others."""
        net, count = self.net, len(batch.latents)
        start, place = text.start, {c: k for k, c in enumerate(words)}
        goal = batch.masks[:, 0]
        own = text.mean[[place.get(int(c), 0) for c in batch.concepts[:, 0]]].detach()
        stranger = text.mean[torch.randint(0, len(words), (count,))].detach()
        vague = (torch.rand(count, 1) * 0.8 * (torch.rand(count, 1) < 0.6)).to(self.device)
        # never trained through the start: that destroyed the word "thing"
        token = ((1 - vague) * text.mean[-1].detach() + vague * (0.6 * own + 0.4 * stranger)).requires_grad_()
        for step in range(2):
            error = cross_entropy(net.pair_maps(queries, token[:, None], start)[0][:, 0], goal)
            inside = (error * goal).sum((1, 2)) / goal.sum((1, 2)).clamp(min=1)
            outside = (error * (1 - goal)).sum((1, 2)) / (1 - goal).sum((1, 2)).clamp(min=1)
            (gradient,) = torch.autograd.grad((inside + outside).sum(), token, create_graph=True)
            token = token - net.log_steps[step].exp() * gradient / (gradient.norm(dim=-1, keepdim=True) + 1e-8)
        shared = batch.concepts[0::2, 0]
        named = torch.from_numpy(shared >= 0).float()[None, :, None, None].to(self.device)
        columns = [place.get(int(c), 0) for c in shared]
        loss, diagonal = torch.zeros((), device=self.device), torch.arange(count // 2)
        for made_on, judged_on in ((0, 1), (1, 0)):
            maps, layers, folded = net.pair_maps([q[judged_on::2] for q in queries], token[made_on::2], start)
            wanted = targets[judged_on::2][:, columns] * named
            wanted[diagonal, diagonal] = batch.masks[judged_on::2, 0]
            present, trust = (wanted.sum((2, 3)) > 0).float(), scene[judged_on::2]
            # two tokens of one concept are no rivals
            fair = trust[:, None] * ((present == 0) | torch.eye(count // 2, device=self.device).bool())
            rank, whole_rank = ranks(maps, wanted * fair.gt(0)[..., None, None], fair)
            each = balanced_each(layers, wanted, present, trust, w.absent)
            loss = loss + 0.5 * (
                balanced(maps, wanted, present, trust, w.absent)
                + 0.5 * each
                + 0.5 * balanced(torch.sigmoid(folded), wanted, present, trust, w.absent)
                + w.peak * peaks(maps, present, trust)
                + 0.5 * (w.rank * rank + w.whole * whole_rank)
            )
        self.log |= {
            "epi": loss.detach(),
            "eiou": overlap(maps.detach(), wanted, (present > 0) & low[0::2, None]),
        }
        return loss


def balanced(maps: Tensor, wanted: Tensor, present: Tensor, trust: Tensor, absent: float) -> Tensor:
    """Binary cross-entropy, present and absent (scene, word) pairs averaged apart; objects count three times."""
    error = (cross_entropy(maps, wanted) * (1 + 2 * wanted)).mean((2, 3)) * (
        trust if trust.dim() == 2 else trust[:, None]
    )
    away = 1 - present
    return (error * present).sum() / (present.sum() + 1e-6) + absent * (error * away).sum() / (away.sum() + 1e-6)


def balanced_each(layers: list[Tensor], wanted: Tensor, present: Tensor, trust: Tensor, absent: float) -> Tensor:
    """Mean of :func:`balanced` over layers' maps."""
    n = len(layers)
    trust = (trust if trust.dim() == 2 else trust[:, None]).expand_as(present)
    wanted, present, trust = wanted.repeat(1, n, 1, 1), present.repeat(1, n), trust.repeat(1, n)
    return balanced(torch.cat(layers, 1), wanted, present, trust, absent)


def ranks(maps: Tensor, targets: Tensor, fair: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of which of the maps (B, W, G, G) is the highest: at objects' pixels, and for objects as a whole.

    ``targets``: each map's own object. ``fair`` (B, W): weight of a map in a scene; 0 takes no part.
    """
    clamped = maps.clamp(1e-4, 1 - 1e-4)
    odds = torch.log(clamped / (1 - clamped)).masked_fill(fair[..., None, None] == 0, -20)
    targets = targets * fair.gt(0)[..., None, None]
    owned = targets / targets.sum(1, keepdim=True).clamp(min=1)
    weight = owned.sum(1) * fair.amax(1)[:, None, None]
    pixels = (-(owned * F.log_softmax(RANK_GAIN * odds, 1)).sum(1) * weight).sum() / (weight.sum() + 1e-6)
    area = targets.sum((2, 3))
    # (B, object, word): mean odds of every word over each object
    mean = torch.einsum("bogh,bwgh->bow", targets, odds) / area.clamp(min=1)[..., None]
    own = F.log_softmax(RANK_GAIN * mean, 2).diagonal(dim1=1, dim2=2)
    count = (area > 1).float() * fair
    return pixels, -(own * count).sum() / (count.sum() + 1e-6)


def peaks(maps: Tensor, present: Tensor, trust: Tensor, share: float = 0.02) -> Tensor:
    """Cross-entropy of the mean of each map's highest ``share`` against presence, both answers counting the same."""
    values = maps.flatten(2)
    top = values.topk(max(1, round(values.shape[2] * share)), 2).values.mean(2)
    error = cross_entropy(top, present) * (trust if trust.dim() == 2 else trust[:, None])
    fair = (trust if trust.dim() == 2 else trust[:, None]).gt(0) * torch.ones_like(present)
    here, away = present * fair, (1 - present) * fair
    return (error * here).sum() / (here.sum() + 1e-6) + (error * away).sum() / (away.sum() + 1e-6)


def overlap(maps: Tensor, wanted: Tensor, chosen: Tensor) -> Tensor:
    """Mean IoU at one half over the chosen (scene, word) pairs; nan of none."""
    a, b = maps > 0.5, wanted > 0.5
    return ((a & b).sum((2, 3)) / (a | b).sum((2, 3)).clamp(min=1) * chosen).sum() / chosen.sum()
