"""Values of the steps of a recording, neighbouring steps averaged where that is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from backends.attention.presets import Preset
from backends.attention.stored import pack_step


@dataclass(slots=True)
class _Mean:
    """Running mean, so that steps recorded together need no more memory than one."""

    total: torch.Tensor
    count: int = 1

    def add(self, value: torch.Tensor) -> None:
        self.total += value
        self.count += 1

    def value(self) -> torch.Tensor:
        return self.total / self.count


@dataclass(slots=True)
class Series:
    """What one place of the UNet gave: its finished groups of steps and the one under way, each (images, ...).

    Attributes:
        preset: brings finished groups to its stored form at once; ``None`` keeps them as they are.
        groups: the finished groups as they are.
        packed: the finished groups in their stored form: of each image the numbers and their scales.
        counts: recorded steps of each finished group.
    """

    preset: Preset | None = None
    groups: list[torch.Tensor] = field(default_factory=list)
    packed: list[list[tuple[torch.Tensor, torch.Tensor | None]]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    open: _Mean | None = None

    def add(self, value: torch.Tensor) -> None:
        if self.open is None:
            self.open = _Mean(value)
        else:
            self.open.add(value)

    def close(self, dtype: torch.dtype) -> None:
        """End the group under way."""
        if self.open is None:
            return
        mean = self.open.total if self.open.count == 1 else self.open.value()
        if self.preset is None:
            self.groups.append(mean.to(dtype))
        else:
            kept = self.preset.dtype
            self.packed.append([pack_step(image, kept) for image in mean])
        self.counts.append(self.open.count)
        self.open = None

    def of(self, image: int) -> torch.Tensor:
        """(groups, ...) of one image, a copy."""
        return torch.stack([group[image] for group in self.groups])

    def packed_of(self, image: int) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """The groups of one image in their stored form."""
        return [group[image] for group in self.packed]
