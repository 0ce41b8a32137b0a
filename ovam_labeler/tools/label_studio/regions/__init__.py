"""Regions of Label Studio: the forms a mask takes on its wire, each in a module of its own.

``reading`` and ``writing`` know what every form shares; ``brush``, ``bitmask`` and ``polygon`` know one form each.
"""

from __future__ import annotations

from ovam_labeler.tools.label_studio.regions.reading import Region, read_regions, region_mask
from ovam_labeler.tools.label_studio.regions.writing import RegionOptions, WrittenRegion, entries, write_regions

__all__ = [
    "Region",
    "RegionOptions",
    "WrittenRegion",
    "entries",
    "read_regions",
    "region_mask",
    "write_regions",
]
