"""Named ways to keep queries: how many bytes an image costs and how near its maps stay to the computed ones.

docs/performance.md has each preset's measured error, mask agreement and size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from backends.contract import DEFAULT_PRESET, BackendError


@dataclass(frozen=True, slots=True)
class Preset:
    """How queries are stored.

    Attributes:
        name: as ``OVAM_CACHE_PRESET`` and ``Needs.preset`` name it.
        dtype: of the stored numbers; int8 has a scale for each (step, head, channel).
        halves: so few kept steps, and fewer, are stored as float16: there are no neighbours whose rounding would cancel,
            and they take no more bytes than many steps of int8.
        groups: neighbouring steps are averaged into at most so many groups; ``None`` keeps every step.
        bits: of the coded file for each pixel and channel, all steps together; ``None`` stores the numbers uncoded.
    """

    name: str
    dtype: torch.dtype
    groups: int | None = None
    halves: int = 0
    bits: float | None = None

    def dtype_of(self, kept: int) -> torch.dtype:
        """Of the stored numbers where ``kept`` steps are kept."""
        return torch.float16 if kept <= self.halves else self.dtype

    def kept(self, steps: int) -> int:
        """How many of ``steps`` recorded steps are kept."""
        return min(self.groups or steps, steps)

    def group_of(self, index: int, steps: int) -> int:
        """The group that step ``index`` of ``steps`` is averaged into: as even as whole numbers allow, in order."""
        return index * self.kept(steps) // steps


PRESETS = {
    p.name: p
    for p in (
        Preset("lossless", torch.float32),
        Preset("exact", torch.int8, halves=14),
        Preset("balanced", torch.int8, groups=5, halves=2),
        # 13.8 bits for each pixel and channel are 19.8 MB for Stable Diffusion 1.5 at 512 x 512.
        Preset("small", torch.float16, groups=6, bits=13.8),
    )
}


def preset_named(name: str) -> Preset:
    """The preset of that name.

    Raises:
        BackendError: there is none.
    """
    preset = PRESETS.get(name)
    if preset is None:
        raise BackendError(f"Cache preset {name!r} does not exist; {', '.join(PRESETS)} are allowed.")
    return preset


__all__ = ["DEFAULT_PRESET", "PRESETS", "Preset", "preset_named"]
