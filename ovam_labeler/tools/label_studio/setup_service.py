"""Answers Label Studio's /setup: which model version a project has now, from memory."""

from __future__ import annotations

import logging

from ovam_labeler.services import Application
from ovam_labeler.tools.label_studio.extra_params import read_extra_params
from ovam_labeler.tools.label_studio.predict_service import PredictService
from ovam_labeler.tools.label_studio.setup_memory import SetupMemory
from ovam_labeler.tools.label_studio.tool import LabelStudioTool
from ovam_labeler.translate import translate_errors
from token_store.entities import Scope

log = logging.getLogger(__name__)


class SetupService:
    """Thread-safe."""

    def __init__(self, application: Application, tool: LabelStudioTool, predict: PredictService) -> None:
        self._application = application
        self._tool = tool
        self._predict = predict
        self._memory = SetupMemory()

    def answer(
        self, scope: Scope, config_text: str, *, access_token: object = None, extra_params: object = None
    ) -> str:
        """The project's model version.

        Args:
            access_token: the project creator's, offered to the connection's Label Studio where that has none.
            extra_params: whatever JSON is stored on the project's backend; its known entries become project options.

        Raises:
            BadConfigError: the label config is unusable.
            ModelError: the store does not answer, and no version is remembered.
        """
        config = self._tool.parse_config(config_text)
        client = self._tool.connections.client(scope.connection)
        if isinstance(access_token, str) and access_token and client.url is not None:
            client.credentials.offer(access_token)
        for notice in config.notices:
            log.info("Project %s: %s", scope, notice)

        def look() -> str:
            self._keep_options(scope, extra_params)
            return self._predict.model_version(config, scope, self._predict.options(scope))

        return self._memory.get((scope, config), look)

    def _keep_options(self, scope: Scope, extra: object) -> None:
        given, notes = read_extra_params(self._application.settings, extra)
        for note in notes:
            log.warning("Project %s: %s", scope, note)
        if not given:
            return
        with translate_errors():
            stored = self._application.store.get_project_options(scope)
            if any(stored.get(key) != value or key not in stored for key, value in given.items()):
                self._application.store.change_project_options(
                    scope, given, who="label studio", why="extra params of the project's backend"
                )
