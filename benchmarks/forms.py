"""Ways to keep an image's queries, and the computed queries themselves."""

from __future__ import annotations

from collections.abc import Callable

from backends.attention.presets import Preset
from backends.attention.queries import LayerQueries, QueryBundle, kept

#: Computed queries in, queries as they are opened out.
Form = Callable[[QueryBundle], QueryBundle]


def preset_form(preset: Preset) -> Form:
    """Kept as a cache file keeps them."""
    return lambda bundle: QueryBundle.from_tensors(*kept(bundle, preset))


def computed(bundle: QueryBundle) -> QueryBundle:
    """Float32 queries by step, as the model computed them, of a lossless capture."""
    return QueryBundle(
        tuple(LayerQueries(y.name, y.heads, y.height, y.width, y.scale, y.plain().contiguous()) for y in bundle.layers)
    )
