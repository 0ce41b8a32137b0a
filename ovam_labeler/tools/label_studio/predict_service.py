"""Answers Label Studio's /predict: one entry a task, in order, within the time that Label Studio waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ovam_labeler.domain import ProjectOptions
from ovam_labeler.errors import FetchError, ModelError, OvamError, StorageFullError
from ovam_labeler.helping import QUIET, quiet_labels
from ovam_labeler.options import project_options
from ovam_labeler.services import Application
from ovam_labeler.tools.contract import ParsedConfig
from ovam_labeler.tools.label_studio.asked import Asked
from ovam_labeler.tools.label_studio.click_service import ClickService
from ovam_labeler.tools.label_studio.label_config import labels_on
from ovam_labeler.tools.label_studio.predictions import form_mark, is_among, prediction, regions_of, write_image
from ovam_labeler.tools.label_studio.single_flight import SingleFlight
from ovam_labeler.tools.label_studio.sweeps import Sweeps
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

#: Label Studio gives a request up after so long (its own setting, which it tells nobody).
WAITS_SECONDS = 100.0

#: How Label Studio is told to pass over a task and keep the others (measured).
SKIP: list[Any] = []


@dataclass(frozen=True, slots=True)
class _Made:
    """A task's prediction and what it was made with."""

    prediction: Mapping[str, Any]
    token_versions: Mapping[str, int]
    version_ids: Mapping[str, int | None]


def holds(tool: LabelStudioTool, scope: Scope, task: str, version: str) -> bool:
    """Whether Label Studio holds a prediction of this version for the task; no where it cannot be asked."""
    try:
        stored = tool.connections.client(scope.connection).predictions(int(task))
    except (FetchError, ValueError):
        return False
    return is_among(stored, version)


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
        self._asked = Asked(clock)
        self._sweeps = Sweeps(clock)
        self.hand_over: Callable[[Scope, list[str]], bool] = lambda _scope, _tasks: False

    def options(self, scope: Scope) -> ProjectOptions:
        """The project's options, from memory and one read of the store."""
        with translate_errors():
            return project_options(self._application.settings, self._application.store.get_project_options(scope))

    def model_version(self, config: ParsedConfig, scope: Scope, options: ProjectOptions) -> str:
        """The one string of /setup and /predict."""
        config = self._speaking(config, scope, options)
        with translate_errors():
            version = self._application.proposer.model_version(config.labels, scope, options)
        return f"{version}{form_mark(config)}"

    def _speaking(self, config: ParsedConfig, scope: Scope, options: ProjectOptions) -> ParsedConfig:
        """The config without the classes that are not to be proposed, and those whose proposals hurt (see
        :mod:`ovam_labeler.helping`)."""
        store = self._application.store
        with translate_errors():
            quiet: frozenset[str] = frozenset()
            if store.get_note(scope, QUIET):
                active = store.find_active(scope, [label.name for label in config.labels])
                quiet = quiet_labels(store, scope, {name: version.number for name, version in active.items()})
        labels = tuple(x for x in config.labels if options.wants(x.name) and x.name not in quiet)
        if len(labels) == len(config.labels):
            return config
        controls = tuple(replace(c, labels=tuple(x for x in c.labels if x in labels)) for c in config.controls)
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
            with self._asked.together([(scope, task_id(task)) for task in tasks]):
                return self._answer(scope, config, options, tasks, context)
        key = (scope, task_id(tasks[0]))
        with self._asked.alone(key) as first:
            if first and not self._is_stored(scope, config, options, key[1]):
                return self._answer(scope, config, options, tasks, None)
        if not first:
            self._asked.wait_for_first(key)
        return [SKIP]

    def is_asked_for(self, scope: Scope, task: object, version: str) -> bool:
        """Whether Label Studio waits for this task's prediction now, will ask for it as part of a batch, or was given
        this version of it and may not have stored it yet."""
        key = (scope, task_id(task))
        return self._asked.waits(key) or self._sweeps.pending(*key, version)

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
        coming = self._coming(scope, config, options, tasks) if context is None else frozenset()
        done, left = 0, len(tasks) - len(coming)
        for index, task in enumerate(tasks):
            if index in coming:
                results.append(SKIP)
                continue
            there = context is None and self._is_there(scope, config, options, task_id(task))
            made = None if there else self._made_or_none(scope, config, options, task, index, context)
            results.append(SKIP if made is None else made.prediction)
            if made is not None and context is None:
                served.append(self._served(scope, task, made, config))
            spent, done, left = self._clock() - began, done + 1, left - 1
            if left and spent / done * left > budget - spent:
                rest = [t for place, t in enumerate(tasks) if place > index and place not in coming]
                if context is None and self.hand_over(scope, [task_id(t) for t in rest if task_id(t)]):
                    log.info("%d of %d tasks are predicted in the background and pushed.", left, len(tasks))
                    results += [SKIP] * (len(tasks) - len(results))
                    break
                log.info(
                    "%d tasks would take longer than %g s; Label Studio is made to ask one by one.", len(tasks), budget
                )
                results, served = results[:1], [s for s in served if s.task_id == task_id(tasks[0])]
                if spent < WAITS_SECONDS:
                    self._sweeps.begin(scope, (task_id(t) for t in tasks))
                break
        self._remember(served)
        if context is None and len(results) == len(tasks):
            self._given(scope, tasks, results)
        return results

    def pushed(self, scope: Scope, task: str, version: str) -> None:
        """Told of each prediction that was handed to Label Studio unasked."""
        self._sweeps.pushed(scope, task, version)

    def _is_stored(self, scope: Scope, config: ParsedConfig, options: ProjectOptions, task: str) -> bool:
        """Whether a request is the late twin of one whose answer Label Studio holds by now."""
        return self._asked.may_be_late((scope, task)) and holds(
            self._tool, scope, task, self.model_version(config, scope, options)
        )

    def _is_there(self, scope: Scope, config: ParsedConfig, options: ProjectOptions, task: str) -> bool:
        """Whether Label Studio holds this version by a push: it looks at what it holds, then prepares its request, for a
        quarter of a minute with 1,000 tasks (measured), and what is pushed meanwhile it would store again."""
        version = self._sweeps.was_pushed(scope, task)
        if not version or version != self.model_version(
            config, scope, options
        ):  # most were not: nothing is read for them
            return False
        return holds(self._tool, scope, task, version)

    def _coming(
        self, scope: Scope, config: ParsedConfig, options: ProjectOptions, tasks: Sequence[object]
    ) -> frozenset[int]:
        """Places in a batch of tasks that Label Studio asks for one by one already: somebody did not wait, and asked for all
        of them again.  A task asked for alone may be somebody's who has opened it, and is always answered."""
        if len(tasks) < 2:
            return frozenset()
        version = self.model_version(config, scope, options)
        found = frozenset(n for n, task in enumerate(tasks) if self._sweeps.swept(scope, task_id(task), version))
        if found:
            log.info("%d of %d tasks are asked for already, and are answered there.", len(found), len(tasks))
        return found

    def _given(self, scope: Scope, tasks: Sequence[object], results: Sequence[Any]) -> None:
        for task, result in zip(tasks, results, strict=True):
            if not (name := task_id(task)):
                continue
            if result:
                self._sweeps.answered(scope, name, str(result["model_version"]))
            elif len(tasks) == 1:
                self._sweeps.passed_over(scope, name)

    def _made_or_none(
        self,
        scope: Scope,
        config: ParsedConfig,
        options: ProjectOptions,
        task: object,
        index: int,
        context: Mapping[str, Any] | None,
    ) -> _Made | None:
        """The task's prediction, or None with a sentence in the log.  What would fail for every task, or somebody waits for
        at a smart tool, is raised."""
        try:
            if context is not None:
                return _Made(self._clicks.answer(scope, config, options, task, context), {}, {})
            return self._made(scope, config, options, task)
        except (ModelError, StorageFullError):
            raise
        except OvamError as error:
            if context is not None:  # the editor shows a smart tool's error to the annotator (measured)
                raise
            log.warning("Project %s, task %s is passed over: %s", scope, task_id(task) or f"at place {index}", error)
        except Exception:
            log.exception(
                "Project %s, task %s is passed over: unexpected error", scope, task_id(task) or f"at place {index}"
            )
        return None

    def _made(self, scope: Scope, config: ParsedConfig, options: ProjectOptions, task: object) -> _Made:
        config = self._speaking(config, scope, options)
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
