"""Answers Label Studio's /predict: one entry a task, in order, within the time that Label Studio waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ovam_labeler.domain import ProjectOptions
from ovam_labeler.errors import BadRequestError, ModelError, OvamError, StorageFullError
from ovam_labeler.options import project_options
from ovam_labeler.services import Application
from ovam_labeler.tools.contract import ParsedConfig
from ovam_labeler.tools.label_studio.label_config import labels_on
from ovam_labeler.tools.label_studio.predictions import form_mark, prediction, regions_of, write_image
from ovam_labeler.tools.label_studio.single_flight import SingleFlight
from ovam_labeler.tools.label_studio.task_images import TaskImage, task_images
from ovam_labeler.tools.label_studio.tool import LabelStudioTool
from ovam_labeler.translate import translate_errors
from token_store.contract import StoreError
from token_store.entities import Scope, ServedPrediction

log = logging.getLogger(__name__)

#: Predictions kept in memory, and for how long in seconds.
KEPT, KEPT_SECONDS = 128, 600.0

#: A token that becomes active while masks are made changes the version; they are made again at most this often.
ATTEMPTS = 3

#: How Label Studio is told to pass over a task and keep the others (measured).
SKIP: list[Any] = []


@dataclass(frozen=True, slots=True)
class _Made:
    """A task's prediction and what it was made with."""

    prediction: Mapping[str, Any]
    token_versions: Mapping[str, int]


class PredictService:
    """Thread-safe."""

    def __init__(
        self, application: Application, tool: LabelStudioTool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._application = application
        self._tool = tool
        self._clock = clock
        self._flight: SingleFlight[_Made] = SingleFlight(KEPT, KEPT_SECONDS)

    def options(self, scope: Scope) -> ProjectOptions:
        """The project's options, from memory and one read of the store."""
        with translate_errors():
            return project_options(self._application.settings, self._application.store.get_project_options(scope))

    def model_version(self, config: ParsedConfig, scope: Scope, options: ProjectOptions) -> str:
        """The one string of /setup and /predict."""
        with translate_errors():
            version = self._application.proposer.model_version(config.labels, scope, options)
        return f"{version}{form_mark(config)}"

    def answer(
        self, scope: Scope, config_text: str, tasks: Sequence[object], context: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """Results for ``tasks``.

        A task that fails is passed over with its sentence in the log.  Where the batch would take longer than
        ``OVAM_PREDICT_BUDGET``, the answer is exactly one result: Label Studio then asks task by task, each with a
        time limit of its own, and those made so far are answered from memory.

        Args:
            context: of an interactive request: regions that name the labels wanted.

        Raises:
            BadConfigError: the label config is unusable.
            ModelError: the base model cannot be loaded; StorageFullError: no space left.
        """
        config = self._tool.parse_config(config_text)
        options = self.options(scope)
        budget, began = self._application.settings.predict_budget, self._clock()
        results: list[Any] = []
        served: list[ServedPrediction] = []
        for index, task in enumerate(tasks):
            made = self._made_or_none(scope, config, options, task, index)
            results.append(SKIP if made is None else _for_context(made.prediction, config, context))
            if made is not None and context is None:
                served.append(self._served(scope, task, made, config))
            spent, done, left = self._clock() - began, index + 1, len(tasks) - index - 1
            if left and spent / done * left > budget - spent:
                log.info(
                    "%d tasks would take longer than %g s; Label Studio is made to ask one by one.", len(tasks), budget
                )
                results, served = results[:1], [s for s in served if s.task_id == _id(tasks[0])]
                break
        self._remember(served)
        return results

    def _made_or_none(
        self, scope: Scope, config: ParsedConfig, options: ProjectOptions, task: object, index: int
    ) -> _Made | None:
        """The task's prediction, or None with a sentence in the log.  What would fail for every task is raised."""
        try:
            return self._made(scope, config, options, task)
        except (ModelError, StorageFullError):
            raise
        except OvamError as error:
            log.warning("Project %s, task %s is passed over: %s", scope, _id(task) or f"at place {index}", error)
        except Exception:
            log.exception(
                "Project %s, task %s is passed over: unexpected error", scope, _id(task) or f"at place {index}"
            )
        return None

    def _made(self, scope: Scope, config: ParsedConfig, options: ProjectOptions, task: object) -> _Made:
        task_id = _id(task)
        if not isinstance(task, Mapping) or not task_id:
            raise BadRequestError("A task must be an object with an id.")
        data = task.get("data")
        if not isinstance(data, Mapping):
            raise BadRequestError("The task's field 'data' must be an object.")
        pictures = tuple(task_images(data, config))
        prompt = data.get("prompt") if isinstance(data.get("prompt"), str) else ""
        version = self.model_version(config, scope, options)
        key = (scope, task_id, pictures, prompt, config, options, version)
        return self._flight.get(
            key, lambda: self._make(scope, config, options, task_id, pictures, str(prompt), version)
        )

    def _make(
        self,
        scope: Scope,
        config: ParsedConfig,
        options: ProjectOptions,
        task_id: str,
        pictures: tuple[TaskImage, ...],
        prompt: str,
        version: str,
    ) -> _Made:
        images = [self._tool.load_image(picture.reference) for picture in pictures]
        for _ in range(ATTEMPTS):
            with translate_errors():
                proposals = [
                    self._application.proposer.propose(
                        image, labels_on(config, picture.name), scope, options, prompt=prompt
                    )
                    for picture, image in zip(pictures, images, strict=True)
                ]
            now = self.model_version(config, scope, options)
            if now == version:
                break
            version = now
        written = [
            (
                found,
                write_image(
                    found, config, picture, (image.height, image.width), version, task_id=task_id, options=options
                ),
            )
            for picture, image, found in zip(pictures, images, proposals, strict=True)
        ]
        versions = {p.label: p.token_version for found in proposals for p in found if p.token_version is not None}
        return _Made(prediction(written, version), versions)

    def _served(self, scope: Scope, task: object, made: _Made, config: ParsedConfig) -> ServedPrediction:
        return ServedPrediction(
            scope=scope,
            task_id=_id(task),
            model_version=str(made.prediction["model_version"]),
            regions=regions_of(made.prediction, config),
            token_versions=dict(made.token_versions),
            created_at=datetime.now(UTC),
        )

    def _remember(self, served: list[ServedPrediction]) -> None:
        """Store what was served.  Without it deletions go unseen, but the annotator still gets the masks."""
        try:
            if served:
                self._application.store.put_served(served)
        except StoreError as error:
            log.warning("What was served could not be stored, so deleted regions will not be understood: %s", error)


def _for_context(prediction: Mapping[str, Any], config: ParsedConfig, context: Mapping[str, Any] | None) -> Any:
    """The prediction; for an interactive request only the regions of the labels its own regions name."""
    if context is None:
        return prediction
    regions = context.get("result")
    named: set[str] = set()
    for region in regions if isinstance(regions, list) else []:
        value = region.get("value") if isinstance(region, Mapping) else None
        texts = value.get(region.get("type")) if isinstance(value, Mapping) else None
        named.update(text for text in texts if isinstance(text, str)) if isinstance(texts, list) else None
    wanted = [r for r in prediction["result"] if not named or r["value"][config.region][0] in named]
    return {**prediction, "result": wanted}


def _id(task: object) -> str:
    value = task.get("id") if isinstance(task, Mapping) else None
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
