"""Contract of a labeling tool (entry point group ``ovam_labeler.tools``).  Label Studio is the first.

A tool knows its own wire protocol and nothing of models: it reads labels from a config, turns a task into an image
reference, writes proposals in the tool's form, reads corrections and decodes them into truths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ovam_labeler.domain import Label, LoadedImage, Proposal, Truth
from token_store.entities import Correction, NewCorrection, Scope, ServedPrediction

#: Version of this contract; a plugin built for another major version is listed as broken.
API_VERSION = 1


@dataclass(frozen=True, slots=True)
class ImageField:
    """A picture a task shows.

    Attributes:
        name: of the image tag.
        key: task data key of the image, or of the list of images.
        many: whether the key holds a list (Label Studio: ``valueList``).
    """

    name: str
    key: str
    many: bool = False


@dataclass(frozen=True, slots=True)
class Control:
    """A way masks of some labels are drawn on one picture.

    Attributes:
        name: of the tag that draws.
        to_name: of the image tag it draws on.
        form: result type of its regions, e.g. ``"brushlabels"``; ``"brush"`` where the labels are a tag of their own.
        labels: in the config's order.
        labels_name: of that other tag, or ``""``.
    """

    name: str
    to_name: str
    form: str
    labels: tuple[Label, ...]
    labels_name: str = ""


@dataclass(frozen=True, slots=True)
class ParsedConfig:
    """A label config in our terms.

    Attributes:
        labels: of all controls, each once, in the config's order.
        image_key: task data key of the (first) image (``image`` for ``value="$image"``).
        control, to_name: names of the (first) control and image tags a region is written for.
        region: form of that control, e.g. ``"brushlabels"``.
        notices: one sentence per thing that was ignored.
        controls, images: all of them, where a tool has more than one.
    """

    labels: tuple[Label, ...]
    image_key: str
    control: str
    to_name: str
    region: str
    notices: tuple[str, ...] = ()
    controls: tuple[Control, ...] = ()
    images: tuple[ImageField, ...] = ()


@runtime_checkable
class LabelingTool(Protocol):
    name: str
    api_version: int

    def parse_config(self, config: str) -> ParsedConfig:
        """Raises BadConfigError: no image tag, no labels, or no control we can write."""

    def write(
        self, proposals: Sequence[Proposal], config: ParsedConfig, image_size: tuple[int, int], version: str
    ) -> Mapping[str, Any]:
        """A prediction in the tool's own form for one task; absent proposals give no region."""

    def read_correction(
        self, event: Mapping[str, Any], scope: Scope, served: ServedPrediction | None
    ) -> NewCorrection | None:
        """A correction from the tool's event, or None when it teaches nothing (skip, draft, wholly untouched)."""

    def truths_of(self, correction: Correction, image: LoadedImage) -> tuple[list[Truth], list[str]]:
        """Decoded truths and one sentence per skipped region."""

    def image_of(self, correction: Correction) -> tuple[LoadedImage, str]:
        """Fetch the corrected task's image; returns it with the task's prompt or ""."""
