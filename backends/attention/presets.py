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
        groups: neighbouring steps are averaged into at most so many groups; ``None`` keeps every step.
        bits: of the coded file for each pixel and channel, all steps together; ``None`` stores the numbers uncoded.
    """

    name: str
    dtype: torch.dtype
    groups: int | None = None
    bits: float | None = None

    def group_of(self, index: int, steps: int) -> int:
        """The group that step ``index`` of ``steps`` is averaged into: as even as whole numbers allow, in order."""
        return index * min(self.groups or steps, steps) // steps


PRESETS = {
    p.name: p
    for p in (
        Preset("lossless", torch.float32),
        Preset("exact", torch.int8),
        Preset("balanced", torch.int8, groups=5),
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
