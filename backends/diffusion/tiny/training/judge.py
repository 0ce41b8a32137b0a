"""Stage ``judge``: a small classifier of single objects, trained on exact scenes only, to judge generated pictures.

It never sees a generated picture. Its classes are known concepts of which two design families are held out, so that its own
accuracy can be stated on exact scenes of drawings that it has not seen. Written as half precision for the evaluation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .composer import compose
from .library import Library

TARGET = Path("ovam_labeler/evaluation/assets/judge.safetensors")
SIDE, COMPOSED = 64, 96  # pixels a side: as judged, as composed
WIDTHS = (24, 48, 96, 192)
RATE, BATCH = 2e-3, 64


def make_judge(classes: int) -> nn.Sequential:
    """Untrained: five 3 x 3 convolutions, group norms, a mean over what is left."""
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTHS[0], 3, padding=1, stride=2), nn.SiLU()]
    for before, after in zip(WIDTHS, (*WIDTHS[1:], WIDTHS[-1]), strict=True):
        layers += [nn.GroupNorm(8, before), nn.Conv2d(before, after, 3, padding=1), nn.SiLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(WIDTHS[-1], classes)
    )


def as_input(images: np.ndarray) -> Tensor:
    """uint8 (n, H, W, 3) as the judge reads them, (n, 3, SIDE, SIDE)."""
    values = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.interpolate(values, (SIDE, SIDE), mode="area")


class Judge:
    """A trained judge and the labels of its classes."""

    def __init__(self, path: Path = TARGET) -> None:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            self.labels: list[str] = json.loads(file.metadata()["labels"])
        self.net = make_judge(len(self.labels)).eval()
        self.net.load_state_dict({name: value.float() for name, value in load_file(path).items()})

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> list[str]:
        """The label of each uint8 (n, H, W, 3) picture."""
        return [self.labels[i] for i in self.net(as_input(images)).argmax(1).tolist()]


def classes_of(split: dict[str, Any]) -> list[str]:
    """The known concepts that have held-out drawings."""
    return sorted([*split["known_test"], *split["known_validation"]])


def draw(library: Library, labels: list[str], rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(pictures, classes): one training drawing each, alone on a background, plain ones as well."""
    images, classes = [], rng.integers(len(labels), size=count)
    for k in classes:
        drawings = library.train[library.index[labels[k]]]
        sprite = library.drawing(drawings[rng.integers(len(drawings))][1], rng)
        images.append(compose([sprite], rng, (COMPOSED, COMPOSED), scales=[rng.uniform(0.4, 0.95)])[0])
    return np.stack(images), classes


def train(library: Library, labels: list[str], steps: int, seed: int = 0) -> nn.Sequential:
    rng = np.random.default_rng(seed)
    net = make_judge(len(labels))
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.1)
    hits: list[float] = []
    for step in range(steps):
        images, classes = draw(library, labels, rng, BATCH)
        wanted = torch.from_numpy(classes)
        with torch.autocast("cpu", torch.bfloat16):
            scores = net(as_input(images)).float()
        loss = F.cross_entropy(scores, wanted, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        hits.append(float((scores.argmax(1) == wanted).float().mean()))
        if (step + 1) % 50 == 0:
            print(f"{step + 1} accuracy in training {np.mean(hits):.3f}", flush=True)
            hits = []
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--target", type=Path, default=TARGET)
    a = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    library = Library(extra=False)
    labels = classes_of(library.split)
    net = train(library, labels, a.steps)
    half = {name: value.half().contiguous() for name, value in net.state_dict().items()}
    a.target.parent.mkdir(parents=True, exist_ok=True)
    save_file(half, a.target, metadata={"labels": json.dumps(labels, ensure_ascii=False)})
    print(f"{a.target}: {len(labels)} classes, {a.target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
