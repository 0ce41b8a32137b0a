"""Generated pictures before two judges that know nothing of the model: a classifier of exact scenes, and saliency.

The classifier (``training.judge``) was trained on composed scenes alone; both judges' own error is measured here, on exact
scenes of drawings that neither the model nor the classifier was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch

from backends.contract import Needs
from backends.diffusion.tiny.training.composer import compose
from backends.diffusion.tiny.training.judge import TARGET, Judge
from backends.discovery import load_backend
from ovam_labeler.demo.saliency import SaliencyJudge
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.errors import ModelError
from ovam_labeler.evaluation.embedded.bench import Bench
from ovam_labeler.evaluation.embedded.drawings import unseen_styles
from ovam_labeler.evaluation.metrics import iou

PROMPT = "a photograph of a {}"
#: Every so manieth class is generated; exact scenes of a class; pixels a side of an exact scene.
EVERY, EXACT, SIDE = 1, 4, 128


@dataclass(frozen=True, slots=True)
class Judged:
    """Shares and mean IoU, 0..1; ``None`` where the saliency judge is not installed.

    Attributes:
        prompts, classes: pictures generated, and classes that the classifier tells apart.
        recognised: generated pictures whose prompted class the classifier names.
        exact: the classifier's accuracy on exact scenes, by kind (``seen``: held-out drawings, ``unseen``: unseen styles).
        overlap: IoU of the saliency mask with the word's mask in generated pictures; ``own``: with exact masks.
    """

    prompts: int
    classes: int
    recognised: float
    exact: dict[str, float | None]
    overlap: float | None
    own: float | None


def judge_generated(model: str, every: int = EVERY) -> Judged:
    """Generate a picture of every ``every``-th class and judge it."""
    torch.set_num_threads(1)
    bench, judge = Bench(load_backend(model)), Judge(TARGET)
    try:
        saliency = SaliencyJudge()
    except ModelError as error:
        print(f"no second judge of generated pictures: {error}", flush=True)
        saliency = None
    hits, overlaps = [], []
    for seed, label in enumerate(judge.labels[::every]):
        made = bench.reader.generate(PROMPT.format(label), Needs(), seed=seed)
        hits.append(judge(made.image[None])[0] == label)
        if saliency is None:
            continue
        found = saliency.mask(made.image)
        with torch.no_grad():
            (heat,) = bench.attributor.maps(made.capture, [bench.attributor.words(label, PROMPT.format(label))])
        painted = bench.painted(made.image, heat, bench.attributor.calibration.word_threshold)
        overlaps.append(iou(painted, found))
    exact, own = _exact(judge, saliency)
    return Judged(
        len(hits),
        len(judge.labels),
        float(np.mean(hits)),
        exact,
        float(np.mean(overlaps)) if overlaps else None,
        own,
    )


def _exact(judge: Judge, saliency: SaliencyJudge | None) -> tuple[dict[str, float | None], float | None]:
    """The judges on exact scenes of one held-out object: accuracy by kind, saliency's IoU."""
    pack = [c for split in ("test", "val") for c in load_pack(split) if c.name in judge.labels]
    unseen = unseen_styles([c.name for c in pack])
    hits: dict[str, list[bool]] = {"seen": [], "unseen": []}
    overlaps = []
    for concept in pack:
        for kind, drawings in (("seen", concept.sprites), ("unseen", unseen.get(concept.name, ()))):
            for k in range(EXACT if drawings else 0):
                rng = np.random.default_rng([crc32(f"judge {concept.name} {kind} {k}".encode())])
                sprite = drawings[k % len(drawings)].pixels
                image, (soft,) = compose([sprite], rng, (SIDE, SIDE), scales=[rng.uniform(0.4, 0.95)])
                hits[kind].append(judge(image[None])[0] == concept.name)
                if saliency is not None and kind == "seen" and k == 0:
                    overlaps.append(iou(saliency.mask(image), soft > 0.5))
    accuracy = {kind: float(np.mean(found)) if found else None for kind, found in hits.items()}
    return accuracy, float(np.mean(overlaps)) if overlaps else None
