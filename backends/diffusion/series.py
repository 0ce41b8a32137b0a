"""Values of the steps of a recording, neighbouring steps averaged where that is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

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
        packed_as: dtype of the stored form that finished groups are brought to at once; ``None`` keeps them as they are.
        groups: the finished groups as they are.
        packed: the finished groups in their stored form: of each image the numbers and their scales.
        counts: recorded steps of each finished group.
        carry: what rounding took from the last finished group, see :func:`backends.attention.stored.pack_step`.
    """

    packed_as: torch.dtype | None = None
    groups: list[torch.Tensor] = field(default_factory=list)
    packed: list[list[tuple[torch.Tensor, torch.Tensor | None]]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    open: _Mean | None = None
    carry: torch.Tensor | None = None

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
        if self.packed_as is None:
            self.groups.append(mean.to(dtype))
        else:
            if self.carry is None and self.packed_as == torch.int8:
                self.carry = torch.zeros(mean.shape)
            carries = [None] * len(mean) if self.carry is None else self.carry
            self.packed.append(
                [pack_step(image, self.packed_as, carry) for image, carry in zip(mean, carries, strict=True)]
            )
        self.counts.append(self.open.count)
        self.open = None

    def of(self, image: int) -> torch.Tensor:
        """(groups, ...) of one image, a copy."""
        return torch.stack([group[image] for group in self.groups])

    def packed_of(self, image: int) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """The groups of one image in their stored form."""
        return [group[image] for group in self.packed]
