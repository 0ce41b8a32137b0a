"""``python -m benchmarks.small``: ways to keep queries in about the bytes of the preset ``small``, and what their masks are worth.

Each form's bits for each pixel and channel (13.9 are 20 MB for Stable Diffusion 1.5 at 512 x 512), mean IoU of word masks with
lossless ones and largest map error over the range, on 30-step pictures that the embedded model generates.
"""

from __future__ import annotations

import json
import sys

import torch

from backends.attention.presets import PRESETS, Preset
from backends.attention.queries import LayerQueries, QueryBundle
from backends.diffusion.tiny import SPEC
from benchmarks.embedded import against_lossless
from benchmarks.forms import Form, preset_form

BITS = PRESETS["small"].bits
#: What is compared beside ``small``: as many bits for other numbers of groups, and forms without a transform.
GROUPS = (1, 2, 3, 4, 5, 6, 8, 10, 15, 30)


def scalar(bits: int, groups: int, *, delta: bool = False) -> Form:
    """Steps averaged into groups, rounded to ``bits`` by head and channel; ``delta``: each group as its change from the last."""

    def keep(layer: LayerQueries) -> LayerQueries:
        pooled = layer.stored(Preset("pooled", torch.float32, groups=groups))
        steps, last = [], None
        for step in pooled.plain_steps():
            wanted = step if last is None or not delta else step - last
            scale = wanted.abs().amax(1, keepdim=True).clamp_min(1e-20) / (2 ** (bits - 1) - 1)
            rounded = torch.round(wanted / scale) * scale
            last = rounded if last is None or not delta else last + rounded
            steps.append(last)
        repeated = [s for s, count in zip(steps, pooled.counts, strict=True) for _ in range(count)]
        return LayerQueries(layer.name, layer.heads, layer.height, layer.width, layer.scale, torch.stack(repeated))

    return lambda bundle: QueryBundle(tuple(keep(layer) for layer in bundle.layers if isinstance(layer, LayerQueries)))


def middle(bundle: QueryBundle) -> QueryBundle:
    """One middle step (of 30: the paper's t = 12), 8 bits."""
    return scalar(8, 1)(bundle.select(steps=[12]))


def main() -> int:
    forms: dict[str, tuple[float, Form]] = {
        f"coded, {g} groups": (BITS, preset_form(Preset("coded", torch.float16, groups=g, bits=BITS))) for g in GROUPS
    }
    forms["8 bits, one middle step"] = (8, middle)
    forms["8 bits, all steps averaged"] = (8, scalar(8, 1))
    forms["6 bits, 2 groups"] = (12, scalar(6, 2))
    forms["4 bits, 3 groups"] = (12, scalar(4, 3))
    forms["4 bits, 3 groups, each as its change"] = (12, scalar(4, 3, delta=True))
    forms["2 bits, 6 groups, each as its change"] = (12, scalar(2, 6, delta=True))
    backend = SPEC.load("embedded", "cpu", None)
    agreement, errors = against_lossless(backend, {name: form for name, (_, form) in forms.items()})
    for name, (bits, _) in forms.items():
        print(f"{name:40s} {bits:5.1f} bits   IoU {agreement[name]:.4f}   error {errors[name]:.3f}", flush=True)
    print(json.dumps({"cache_iou": agreement, "cache_error": errors}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
