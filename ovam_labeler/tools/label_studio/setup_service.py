"""Answers Label Studio's /setup: which model version a project has now, from memory."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from ovam_labeler.option_changes import change_options
from ovam_labeler.options import TOOL_OPTIONS, tool_options
from ovam_labeler.services import Application
from ovam_labeler.tools.label_studio.extra_params import read_extra_params
from ovam_labeler.tools.label_studio.predict_service import PredictService
from ovam_labeler.tools.label_studio.renames import LabelNames
from ovam_labeler.tools.label_studio.setup_memory import SetupMemory
from ovam_labeler.tools.label_studio.tool import LabelStudioTool
from ovam_labeler.translate import translate_errors
from token_store.entities import Scope

log = logging.getLogger(__name__)


#: Given for extra params where the request does not speak of them: what was set before holds.
UNSAID = object()


class SetupService:
    """Thread-safe.

    Args:
        names: told the project's labels, so that the pages know them before anything was corrected.
    """

    def __init__(
        self, application: Application, tool: LabelStudioTool, predict: PredictService, names: LabelNames
    ) -> None:
        self._application = application
        self._tool = tool
        self._predict = predict
        self._names = names
        self._memory = SetupMemory()
        # Projects that the store was told of; it is asked once a process.
        self._told: set[Scope] = set()

    def answer(
        self, scope: Scope, config_text: str, *, access_token: object = None, extra_params: object = UNSAID
    ) -> str:
        """The project's model version.

        Args:
            access_token: the project creator's, offered to the connection's Label Studio where that has none.
            extra_params: whatever JSON is stored on the project's backend; its known entries are project options, which go
                before those of the pages until they are taken back there.

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
            with translate_errors():
                self._names.follow(scope, {"label_config": config_text, "updated_at": _now()})
            self._keep_options(scope, extra_params)
            return self._predict.model_version(config, scope, self._predict.options(scope))

        return self._memory.get((scope, config), look)

    def _keep_options(self, scope: Scope, extra: object) -> None:
        store, settings = self._application.store, self._application.settings
        given, notes = read_extra_params(settings, None if extra is UNSAID else extra)
        for note in notes:
            log.warning("Project %s: %s", scope, note)
        if isinstance(given.get("classes"), list):
            given["classes"] = [self._names.now(scope, name) for name in given["classes"]]
        with translate_errors():
            said = tool_options(store.get_project_options(scope))
            changed = extra is not UNSAID and said != given
            if not changed and scope in self._told:
                return
            changes = {TOOL_OPTIONS: given or None} if changed else {}
            why = "extra parameters of the project's backend"
            fresh = change_options(store, settings, scope, changes, who="label studio", why=why)
        self._told.add(scope)
        if fresh:
            self._application.jobs.notify()


def _now() -> str:
    """As Label Studio writes the time of a project's last change, which this request does not tell."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
