"""Finds labeling tools by entry point (group ``ovam_labeler.tools``); a broken one is listed with its error.

Label Studio registers as strangers' tools do.  Where the distribution's metadata is missing (a source tree that was
never installed), the built-in comes from :data:`BUILT_INS`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ovam_labeler.errors import ModelError, OvamError
from ovam_labeler.tools.contract import API_VERSION, LabelingTool

DISTRIBUTION = "ovam-labeler"
GROUP = "ovam_labeler.tools"

#: What ``pyproject.toml`` registers; used only where the distribution is not installed.
BUILT_INS: Mapping[str, str] = {
    "label-studio": "ovam_labeler.tools.label_studio.tool:LabelStudioTool",
    "cvat": "ovam_labeler.tools.cvat.tool:CvatTool",
}

_FUNCTIONS = ("parse_config", "write", "read_correction", "truths_of", "image_of")


@dataclass(frozen=True, slots=True)
class FoundTool:
    """One tool, usable or not.

    Attributes:
        name: of the entry point.
        distribution: name of the installed distribution that brings it.
        tool: an instance; ``None`` where it is broken.
        error: one sentence saying why it is broken; ``None`` where it works.
    """

    name: str
    distribution: str
    tool: LabelingTool | None
    error: str | None

    def get(self) -> LabelingTool:
        """The tool itself.  Raises ModelError with the sentence where it is broken."""
        if self.tool is None:
            raise ModelError(f"The labeling tool '{self.name}' of {self.distribution} cannot be used: {self.error}")
        return self.tool


@lru_cache(maxsize=1)
def tools() -> Mapping[str, FoundTool]:
    """Labeling tools by name, usable and broken, sorted by name."""
    found: dict[str, FoundTool] = {}
    for point in _entry_points():
        distribution = point.dist.name if point.dist is not None else DISTRIBUTION
        name = point.name
        if name in found:  # the first of two keeps the name; the other is shown, not dropped
            taken, name = found[name].distribution, f"{point.name} ({distribution})"
            found[name] = FoundTool(name, distribution, None, f"the name '{point.name}' is taken by {taken}")
            continue
        try:
            found[name] = FoundTool(name, distribution, _as_tool(point.load()), None)
        except Exception as error:  # whatever a stranger's module raises on import is this plugin's error only
            found[name] = FoundTool(name, distribution, None, _sentence(error))
    return dict(sorted(found.items()))


def refresh() -> None:
    """Forget what was found, for a process that installs a plugin while it runs (and for tests)."""
    tools.cache_clear()


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    """Built-ins first, so that no plugin can take a built-in's name."""
    installed = list(importlib.metadata.entry_points(group=GROUP))
    own = [p for p in installed if p.dist is not None and p.dist.name == DISTRIBUTION]
    if not own:
        own = [importlib.metadata.EntryPoint(name, value, GROUP) for name, value in BUILT_INS.items()]
    return own + [p for p in installed if p.dist is None or p.dist.name != DISTRIBUTION]


def _as_tool(value: Any) -> LabelingTool:
    instance = value() if isinstance(value, type) else value
    missing = [f for f in _FUNCTIONS if not callable(getattr(instance, f, None))]
    if not isinstance(getattr(instance, "name", None), str):
        missing.append("name")
    if missing:
        raise OvamError(f"it resolves to {type(instance).__name__}, which lacks {', '.join(missing)} of a LabelingTool")
    version = getattr(instance, "api_version", None)
    if version != API_VERSION:
        raise OvamError(f"it was built for version {version} of the tool contract; this is version {API_VERSION}")
    tool: LabelingTool = instance
    return tool


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, OvamError) else f"{type(error).__name__}: {text}"
