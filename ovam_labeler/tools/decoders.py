"""The labeling tools of this distribution, as what the worker decodes corrections with."""

from __future__ import annotations

from collections.abc import Mapping

from ovam_labeler.services import CorrectionDecoder
from ovam_labeler.settings import Settings
from ovam_labeler.tools.cvat.tool import CvatTool
from ovam_labeler.tools.label_studio.tool import LabelStudioTool


def built_in_decoders(settings: Settings) -> Mapping[str, CorrectionDecoder]:
    """By the ``tool`` of a correction's payload.  A correction pulled by one command is learned by any server."""
    tools = (LabelStudioTool(settings), CvatTool(settings))
    return {tool.name: tool for tool in tools}
