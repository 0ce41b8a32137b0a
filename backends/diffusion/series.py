"""Values of the steps of a recording, neighbouring steps averaged where that is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


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
    """What one place of the UNet gave: its finished groups of steps and the one under way, each (images, ...)."""

    groups: list[torch.Tensor] = field(default_factory=list)
    open: _Mean | None = None

    def add(self, value: torch.Tensor) -> None:
        if self.open is None:
            self.open = _Mean(value)
        else:
            self.open.add(value)

    def close(self, dtype: torch.dtype) -> None:
        """End the group under way."""
        if self.open is not None:
            mean = self.open.total if self.open.count == 1 else self.open.value()
            self.groups.append(mean.to(dtype))
            self.open = None

    def of(self, image: int) -> torch.Tensor:
        """(groups, ...) of one image, a copy."""
        return torch.stack([group[image] for group in self.groups])
