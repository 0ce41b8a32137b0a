"""The manager of label-studio-ml 1.0.9, replaced: see :mod:`.ml_hosting` for why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flask
from label_studio_ml.model import LabelStudioMLManager, ModelWrapper

from ovam_labeler.tools.label_studio import ml_hosting, ml_process
from ovam_labeler.tools.label_studio.event_service import project_id
from ovam_labeler.tools.label_studio.setup_service import UNSAID


class OvamManager(LabelStudioMLManager):
    """Makes a model for each request, tells it its project, and answers that project's version."""

    @classmethod
    def initialize(cls, model_class: Any, *args: Any, **kwargs: Any) -> None:
        """Called when the server starts: jobs left over are gone on with before anyone asks for anything."""
        super().initialize(model_class, *args, **kwargs)
        ml_process.services()

    @classmethod
    def fetch(
        cls, project: Any = None, label_config: str | None = None, force_reload: bool = False, **kwargs: Any
    ) -> ModelWrapper:
        """For /setup: the model and the project's version.  Extra parameters are read from the request, since 1.0.9
        passes them over."""
        model = cls._model(project, label_config)
        body = flask.request.get_json(silent=True) if ml_hosting.serves("/setup") else None
        extra = body.get("extra_params", UNSAID) if isinstance(body, Mapping) else UNSAID
        version = model.version_now(access_token=kwargs.get("access_token"), extra_params=extra)
        return ModelWrapper(model=model, model_version=version)

    @classmethod
    def predict(
        cls,
        tasks: Sequence[Any],
        project: Any = None,
        label_config: str | None = None,
        force_reload: bool = False,
        try_fetch: bool = True,
        **kwargs: Any,
    ) -> tuple[list[Any], ModelWrapper]:
        """For /predict: predictions, each with the version it was made with, and the model with the newest."""
        model = cls._model(project, label_config)
        predictions = model.predict(tasks, **kwargs)
        return predictions, ModelWrapper(model=model, model_version=model.version_now())

    @classmethod
    def webhook(cls, event: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """For /webhook: the event is stored before it is answered; no process is made for it."""
        model = cls.model_class()
        return model.process_event(event, data, job_id=cls._generate_version(), additional_params={}) or {}

    @classmethod
    def _model(cls, project: Any, label_config: str | None) -> Any:
        model = cls.model_class()  # without the config: 1.0.9's own reading of it is not needed, and may fail
        with ml_hosting.answered():
            model.project_id = project_id({"project": project})
        model.label_config = label_config or ""
        return model
