"""Answers a smart tool's request: the part of a label's map that was clicked, from the warm cache."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ovam_labeler.domain import Label, LoadedImage, ProjectOptions, Proposal
from ovam_labeler.masks.picking import pick
from ovam_labeler.services import Application
from ovam_labeler.tools.contract import ParsedConfig
from ovam_labeler.tools.label_studio.interactive import Clicks, read_clicks
from ovam_labeler.tools.label_studio.label_config import control_of
from ovam_labeler.tools.label_studio.predictions import prediction, write_image
from ovam_labeler.tools.label_studio.single_flight import SingleFlight
from ovam_labeler.tools.label_studio.task_images import TaskImage, read_task
from ovam_labeler.tools.label_studio.tool import LabelStudioTool
from ovam_labeler.translate import translate_errors
from token_store.entities import Scope

log = logging.getLogger(__name__)

#: Pictures and maps kept between the clicks of annotators, and for how long in seconds.
KEPT_IMAGES, KEPT_MAPS, KEPT_SECONDS = 3, 8, 600.0


class ClickService:
    """Thread-safe.

    Args:
        version: gives the project's model version.
    """

    def __init__(
        self,
        application: Application,
        tool: LabelStudioTool,
        version: Callable[[ParsedConfig, Scope, ProjectOptions], str],
    ) -> None:
        self._application = application
        self._tool = tool
        self._version = version
        self._images: SingleFlight[LoadedImage] = SingleFlight(KEPT_IMAGES, KEPT_SECONDS)
        self._maps: SingleFlight[Proposal] = SingleFlight(KEPT_MAPS, KEPT_SECONDS)

    def answer(
        self, scope: Scope, config: ParsedConfig, options: ProjectOptions, task: object, context: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """A prediction of the clicked parts alone; its ``result`` is empty where the map has nothing there.

        A click says that the class is there, so the presence decision is left out, and one label does not take pixels
        from another.

        Raises:
            BadRequestError, FetchError, BadImageError: the task's picture cannot be had.
        """
        given = read_task(task, config)
        clicks, notes = read_clicks(context)
        version = self._version(config, scope, options)
        made: list[tuple[list[Proposal], list[dict[str, Any]]]] = []
        for each in clicks:
            picture = next((p for p in given.pictures if p.shows(each.to_name, each.item)), None)
            control = control_of(config, each.to_name, each.label)
            if picture is None or control is None:
                notes.append(f"No control draws masks of the label '{each.label}' on '{each.to_name}'.")
                continue
            label = next(x for x in control.labels if x.name == each.label)
            made.append(self._picked(scope, config, options, given.id, picture, label, each, version, given.prompt))
        for note in notes:
            log.info("Project %s, task %s: %s", scope, given.id, note)
        return prediction(made, version)

    def _picked(
        self,
        scope: Scope,
        config: ParsedConfig,
        options: ProjectOptions,
        task_id: str,
        picture: TaskImage,
        label: Label,
        clicks: Clicks,
        version: str,
        prompt: str,
    ) -> tuple[list[Proposal], list[dict[str, Any]]]:
        asked = replace(options, presence=False, overlap="independent")

        def propose() -> Proposal:
            key = (scope.connection, picture.reference)
            image = self._images.get(key, lambda: self._tool.load_image(picture.reference, scope.connection))
            with translate_errors():
                return self._application.proposer.propose(image, [label], scope, asked, prompt=prompt)[0]

        found = self._maps.get((scope, task_id, picture, label, asked, prompt, version), propose)
        mask = pick(found.mask, found.soft, clicks.points, clicks.boxes)
        chosen = replace(found, mask=mask, present=bool(mask.any()))
        name = f"{task_id}\0{clicks.digest}"
        size = (mask.shape[0], mask.shape[1])
        return [chosen], write_image([chosen], config, picture, size, version, task_id=name, options=options)
