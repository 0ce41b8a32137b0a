"""``OvamModel``: the model class that ``label-studio-ml`` hosts, over the services that our own server uses.

Serves both base classes in use: PyPI's label-studio-ml 1.0.9, and the 2.x of its repository (not on PyPI), whose
methods have other signatures.  A model object is made for every request; nothing is kept in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from label_studio_ml.model import LabelStudioMLBase

from ovam_labeler.errors import BadRequestError
from ovam_labeler.tools.label_studio import ml_hosting, ml_process
from ovam_labeler.tools.label_studio.connections import DEFAULT
from ovam_labeler.tools.label_studio.event_service import project_id
from ovam_labeler.tools.label_studio.setup_service import UNSAID
from token_store.entities import Scope

#: Every event that says something of corrections; upstream waits for an ``ANNOTATION_DELETED`` that never comes.
EVENTS = (
    "ANNOTATION_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "ANNOTATION_DELETED",
    "TASKS_DELETED",
    "PROJECT_UPDATED",
    "START_TRAINING",
)


class OvamModel(LabelStudioMLBase):
    """Proposes masks, and stores corrections.  Learning is done by this process's worker thread, after the answer.

    Events, settings and data folder are those of ``ovam-labeler serve``; the connection is always ``default``.
    """

    TRAIN_EVENTS = EVENTS

    #: Set by 2.x's constructor, and by our manager on 1.0.9, which tells its models nothing of the project.
    project_id: str = ""

    def setup(self) -> None:
        """Called by 2.x's constructor: the project's version is what its /setup answers."""
        if self.project_id and self.label_config and not ml_hosting.serves("/webhook"):
            self.set("model_version", self.version_now())

    def set_extra_params(self, extra_params: Any) -> None:
        """Called by 2.x at /setup: the backend's extra parameters become project options.

        Args:
            extra_params: JSON text or an object; 2.x's own method takes text alone.
        """
        self.set("extra_params", extra_params if isinstance(extra_params, str) else json.dumps(extra_params))
        self.set("model_version", self.version_now(extra_params=extra_params))

    def version_now(self, *, access_token: object = None, extra_params: object = UNSAID) -> str:
        """The one string of /setup and of every prediction.  See :meth:`SetupService.answer`."""
        with ml_hosting.answered():
            return ml_process.services().setup.answer(
                self._scope(), str(self.label_config or ""), access_token=access_token, extra_params=extra_params
            )

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **_: Any
    ) -> list[Any]:
        """One entry a task, in order; an empty list for a task that is passed over.

        That is also why 2.x is given a list and not its ``ModelResponse``, whose models check and rebuild every region.

        Args:
            context: of a smart tool: what was clicked.

        Raises:
            OvamError: see :meth:`PredictService.answer`.
        """
        with ml_hosting.answered():
            given = context if isinstance(context, Mapping) else None
            return ml_process.services().predict.answer(
                self._scope(tasks), str(self.label_config or ""), list(tasks), given
            )

    def fit(self, first: Any = (), data: Any = None, *_: Any, event: str | None = None, **__: Any) -> dict[str, Any]:
        """Store what an event says, durably, and return: no model runs here.

        Called as ``fit((), event=..., data=..., job_id=..., workdir=...)`` by 1.0.9, and as ``fit(event, data)`` or with
        both by name by 2.x.

        Returns:
            what became of it, such as ``{"status": "stored", "correction": 7, ...}``.

        Raises:
            OvamError: nothing was stored; see :meth:`EventService.handle`.
        """
        action = event if event is not None else first
        with ml_hosting.answered():
            if not isinstance(action, str) or not isinstance(data, Mapping):
                raise BadRequestError(
                    "Events are learned from, not lists of annotations: fit() needs an event's name and its data."
                )
            outcome = ml_process.services().events.handle(DEFAULT, {**data, "action": action})
            return dict(outcome.body)

    def _scope(self, tasks: Sequence[Mapping[str, Any]] = ()) -> Scope:
        """The project: as told, else as its tasks say (1.0.9 without our manager)."""
        told = self.project_id or (tasks[0].get("project") if tasks and isinstance(tasks[0], Mapping) else None)
        return Scope(DEFAULT, project_id({"project": told}))


ml_hosting.install(EVENTS)
