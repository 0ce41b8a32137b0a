"""Generated pictures: made by the base model with their queries kept, so that predicting them runs no UNet pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ovam_labeler.demo.saliency import SaliencyJudge
from ovam_labeler.demo.scenes import SceneSet
from ovam_labeler.domain import LoadedImage
from ovam_labeler.errors import ModelError
from ovam_labeler.evaluation.measure import Tick
from ovam_labeler.evaluation.metrics import iou
from ovam_labeler.evaluation.probe import Probe
from ovam_labeler.image_source import load_image
from ovam_labeler.services import Application

#: The prompt of every generated picture; the paper's own template.
PROMPT = "A photograph of a {}"
#: Share of a picture below which the judge's mask counts as nothing found.
NOTHING = 0.01


@dataclass(frozen=True, slots=True)
class GeneratedPicture:
    """A generated picture as a file; ``label`` is the word it was made from."""

    name: str
    label: str
    path: Path
    image: LoadedImage


def generate(
    app: Application, probe: Probe, words: Sequence[str], folder: Path, seed: int, tick: Tick
) -> list[GeneratedPicture]:
    """One picture a word, its queries cached and its making recorded; equal seeds give equal pictures.

    A picture of an earlier run that the store still knows is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for i, word in enumerate(words):
        name = f"generated-{i:02d}"
        path = folder / f"{name}.png"
        image = load_image(path) if path.exists() else None
        if image is None or app.store.get_image(image.sha256) is None:
            image, png, _ = app.inference.generate(PROMPT.format(word), seed=1000 * seed + i, needs=probe.needs)
            path.write_bytes(png)
        made.append(GeneratedPicture(name, word, path, image))
        tick((i + 1) / len(words))
    return made


def word_masks(probe: Probe, pictures: Sequence[GeneratedPicture]) -> list[np.ndarray]:
    """Each picture's word as a mask at the model's own word threshold, presence not asked; from the kept queries."""
    from backends.attention.binarize import relative_map

    threshold = probe.attributor.calibration.word_threshold
    masks = []
    for picture in pictures:
        capture = probe.app.inference.submit(picture.image, probe.needs).result()
        heat = probe.method.maps(probe.attributor, capture, [probe.attributor.words(picture.label)])[0]
        masks.append(relative_map(heat, (picture.image.height, picture.image.width)) >= threshold)
    return masks


def judged(
    pictures: Sequence[GeneratedPicture], masks: Sequence[np.ndarray], scenes: SceneSet, *, unet_passes: int, tick: Tick
) -> dict[str, Any]:
    """The report's ``generated``: agreement with an independent labeller whose own error is measured beside it."""
    found: dict[str, Any] = {
        "images": len(pictures),
        "unet_passes": unet_passes,
        "prompts": [PROMPT.format(p.label) for p in pictures],
        "judge": None,
        "word_iou": None,
        "judge_iou_on_composed": None,
        "note": "",
    }
    try:
        judge = SaliencyJudge()
    except ModelError as error:
        return found | {"note": str(error)}
    finally:
        tick(0.05)
    judgements = [judge.mask(p.image.pixels) for p in pictures]
    composed = [s for s in scenes.scenes if s.role == "test" and s.index == 0]
    tick(0.5)
    scores = [iou(m, j) for m, j in zip(masks, judgements, strict=True)]
    found |= {
        "judge": "U2NetP saliency",
        "word_iou": float(np.mean(scores)) if scores else None,
        "word_ious": scores,
        "judge_iou_on_composed": judge.own_iou(composed),
        "composed": len(composed),
    }
    if blank := sum(float(j.mean()) < NOTHING for j in judgements):
        found["note"] = f"The judge finds nothing that stands out in {blank} of {len(pictures)} generated pictures."
    tick(1.0)
    return found
