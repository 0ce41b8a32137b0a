"""Answers Label Studio's /predict: one entry a task, in order, within the time that Label Studio waits."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ovam_labeler.domain import ProjectOptions
from ovam_labeler.errors import ModelError, OvamError, StorageFullError
from ovam_labeler.helping import QUIET, quiet_labels
from ovam_labeler.options import project_options
from ovam_labeler.services import Application
from ovam_labeler.tools.contract import ParsedConfig
from ovam_labeler.tools.label_studio.click_service import ClickService
from ovam_labeler.tools.label_studio.label_config import labels_on
from ovam_labeler.tools.label_studio.predictions import form_mark, prediction, regions_of, write_image
from ovam_labeler.tools.label_studio.single_flight import SingleFlight
from ovam_labeler.tools.label_studio.task_images import ReadTask, read_task, task_id
from ovam_labeler.tools.label_studio.tool import LabelStudioTool
from ovam_labeler.translate import translate_errors
from token_store.contract import StoreError
from token_store.entities import Scope, ServedPrediction

log = logging.getLogger(__name__)

#: Predictions kept in memory, and for how long in seconds.
KEPT, KEPT_SECONDS = 128, 600.0

#: A token that becomes active while masks are made changes the version; they are made again at most this often.
ATTEMPTS = 3

#: A request equal to one under way is its twin for so long; then Label Studio has given the first one up (100 s).
TWIN_SECONDS = 60.0

#: Time Label Studio is given to store the first one's answer before its twin is answered with nothing.
STORING_SECONDS = 0.5

#: How Label Studio is told to pass over a task and keep the others (measured).
SKIP: list[Any] = []


@dataclass(frozen=True, slots=True)
class _Made:
    """A task's prediction and what it was made with."""

    prediction: Mapping[str, Any]
    token_versions: Mapping[str, int]
    version_ids: Mapping[str, int | None]


class PredictService:
    """Thread-safe.

    Attributes:
        hand_over: given the tasks that cannot be done while Label Studio waits; whether they are done otherwise.
    """

    def __init__(
        self, application: Application, tool: LabelStudioTool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._application = application
        self._tool = tool
        self._clock = clock
        self._flight: SingleFlight[_Made] = SingleFlight(KEPT, KEPT_SECONDS)
        self._clicks = ClickService(application, tool, self.model_version)
        self._asked: dict[tuple[Scope, str], float] = {}
        self._asking = threading.Lock()
        self._answering: Counter[tuple[Scope, str]] = Counter()
        self.hand_over: Callable[[Scope, list[str]], bool] = lambda _scope, _tasks: False

    def options(self, scope: Scope) -> ProjectOptions:
        """The project's options, from memory and one read of the store."""
        with translate_errors():
            return project_options(self._application.settings, self._application.store.get_project_options(scope))

    def model_version(self, config: ParsedConfig, scope: Scope, options: ProjectOptions) -> str:
        """The one string of /setup and /predict."""
        config = self._speaking(config, scope)
        with translate_errors():
            version = self._application.proposer.model_version(config.labels, scope, options)
        return f"{version}{form_mark(config)}"

    def _speaking(self, config: ParsedConfig, scope: Scope) -> ParsedConfig:
        """The config without the classes whose proposals hurt (see :mod:`ovam_labeler.helping`)."""
        store = self._application.store
        with translate_errors():
            if not store.get_note(scope, QUIET):
                return config
            active = store.find_active(scope, [label.name for label in config.labels])
            quiet = quiet_labels(store, scope, {name: version.number for name, version in active.items()})
        controls = tuple(
            replace(c, labels=tuple(label for label in c.labels if label.name not in quiet)) for c in config.controls
        )
        labels = tuple(label for label in config.labels if label.name not in quiet)
        return replace(config, labels=labels, controls=controls)

    def answer(
        self, scope: Scope, config_text: str, tasks: Sequence[object], context: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """Results for ``tasks``.

        A task that fails is passed over with its sentence in the log.  Where the batch would take longer than
        ``OVAM_PREDICT_BUDGET``, the answer is exactly one result: Label Studio then asks task by task, each with a
        time limit of its own, and those made so far are answered from memory.

        Args:
            context: of a smart tool's request: what was clicked; nothing of it is remembered as served.

        Raises:
            BadConfigError: the label config is unusable.
            ModelError: the base model cannot be loaded; StorageFullError: no space left.
        """
        config = self._tool.parse_config(config_text)
        options = self.options(scope)
        if context is not None and "result" not in context:
            context = None
        if context is not None or len(tasks) != 1 or not task_id(tasks[0]):
            asked = [(scope, task_id(task)) for task in tasks]
            with self._asking:
                self._answering.update(asked)
            try:
                return self._answer(scope, config, options, tasks, context)
            finally:
                with self._asking:
                    self._answering.subtract(asked)
                    self._answering += Counter()  # drops what is at 0
        key = (scope, task_id(tasks[0]))
        with self._asking:
            under_way = self._clock() - self._asked.get(key, float("-inf")) < TWIN_SECONDS
            if not under_way:
                self._asked[key] = self._clock()
        if under_way:
            return self._twin(key)
        try:
            return self._answer(scope, config, options, tasks, None)
        finally:
            with self._asking:
                self._asked.pop(key, None)

    def _twin(self, key: tuple[Scope, str]) -> list[Any]:
        """Answer of the second of two equal requests at once: nothing, when the first is done and stored.

        The data manager asks twice for a task that is opened, and Label Studio stores whatever it is given, twice.
        """
        end = self._clock() + TWIN_SECONDS
        while self._clock() < end:
            with self._asking:
                if key not in self._asked:
                    break
            time.sleep(0.02)
        time.sleep(STORING_SECONDS)
        return [SKIP]

    def is_asked_for(self, scope: Scope, task: object) -> bool:
        """Whether Label Studio waits for this task's prediction now, and will store it itself."""
        key = (scope, task_id(task))
        with self._asking:
            return self._answering[key] > 0 or key in self._asked

    def prediction_of(
        self, scope: Scope, config: ParsedConfig, options: ProjectOptions, task: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """One task's prediction ``{"model_version", "score", "result"}``, remembered as served; None with a sentence in
        the log where there is none."""
        made = self._made_or_none(scope, config, options, task, 0, None)
        if made is None:
            return None
        self._remember([self._served(scope, task, made, config)])
        return made.prediction

    def _answer(
        self,
        scope: Scope,
        config: ParsedConfig,
        options: ProjectOptions,
        tasks: Sequence[object],
        context: Mapping[str, Any] | None,
    ) -> list[Any]:
        budget, began = self._application.settings.predict_budget, self._clock()
        results: list[Any] = []
        served: list[ServedPrediction] = []
        for index, task in enumerate(tasks):
            made = self._made_or_none(scope, config, options, task, index, context)
            results.append(SKIP if made is None else made.prediction)
            if made is not None and context is None:
                served.append(self._served(scope, task, made, config))
            spent, done, left = self._clock() - began, index + 1, len(tasks) - index - 1
            if left and spent / done * left > budget - spent:
                if context is None and self.hand_over(scope, [task_id(t) for t in tasks[done:] if task_id(t)]):
                    log.info("%d of %d tasks are predicted in the background and pushed.", left, len(tasks))
                    results += [SKIP] * left
                    break
                log.info(
                    "%d tasks would take longer than %g s; Label Studio is made to ask one by one.", len(tasks), budget
                )
                results, served = results[:1], [s for s in served if s.task_id == task_id(tasks[0])]
                break
        self._remember(served)
        return results

    def _made_or_none(
        self,
        scope: Scope,
        config: ParsedConfig,
        options: ProjectOptions,
        task: object,
        index: int,
        context: Mapping[str, Any] | None,
    ) -> _Made | None:
        """The task's prediction, or None with a sentence in the log.  What would fail for every task is raised."""
        try:
            if context is not None:
                return _Made(self._clicks.answer(scope, config, options, task, context), {}, {})
            return self._made(scope, config, options, task)
        except (ModelError, StorageFullError):
            raise
        except OvamError as error:
            log.warning("Project %s, task %s is passed over: %s", scope, task_id(task) or f"at place {index}", error)
        except Exception:
            log.exception(
                "Project %s, task %s is passed over: unexpected error", scope, task_id(task) or f"at place {index}"
            )
        return None

    def _made(self, scope: Scope, config: ParsedConfig, options: ProjectOptions, task: object) -> _Made:
        config = self._speaking(config, scope)
        given = read_task(task, config)
        version = self.model_version(config, scope, options)
        key = (scope, given, config, options, version)
        return self._flight.get(key, lambda: self._make(scope, config, options, given, version))

    def _make(
        self,
        scope: Scope,
        config: ParsedConfig,
        options: ProjectOptions,
        given: ReadTask,
        version: str,
    ) -> _Made:
        pictures = given.pictures
        images = [self._tool.load_image(picture.reference, scope.connection) for picture in pictures]
        for _ in range(ATTEMPTS):
            with translate_errors():
                proposals = [
                    self._application.proposer.propose(
                        image, labels_on(config, picture.name), scope, options, prompt=given.prompt
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
                    found, config, picture, (image.height, image.width), version, task_id=given.id, options=options
                ),
            )
            for picture, image, found in zip(pictures, images, proposals, strict=True)
        ]
        versions = {p.label: p.token_version for found in proposals for p in found if p.token_version is not None}
        ids = {p.label: p.version_id for found in proposals for p in found}
        return _Made(prediction(written, version), versions, ids)

    def _served(self, scope: Scope, task: object, made: _Made, config: ParsedConfig) -> ServedPrediction:
        return ServedPrediction(
            scope=scope,
            task_id=task_id(task),
            model_version=str(made.prediction["model_version"]),
            regions=regions_of(made.prediction, config),
            token_versions=dict(made.token_versions),
            created_at=datetime.now(UTC),
            version_ids=dict(made.version_ids),
        )

    def _remember(self, served: list[ServedPrediction]) -> None:
        """Store what was served.  Without it deletions go unseen, but the annotator still gets the masks."""
        try:
            if served:
                self._application.store.put_served(served)
        except StoreError as error:
            log.warning("What was served could not be stored, so deleted regions will not be understood: %s", error)
