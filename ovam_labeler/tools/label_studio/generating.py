"""Job ``generate``: the base model makes a picture, which becomes a task of the project with its prompt and seed.

Its capture is kept under the identity of the uploaded file (Label Studio serves the bytes it was given), so predicting it
runs no diffusion model.  A job that runs again finds what it did before: the task by the data's ``generation_id``, an
upload that got no task by its file name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from backends.contract import Capture, Progress
from ovam_labeler.domain import LoadedImage
from ovam_labeler.errors import BadRequestError, OvamError
from ovam_labeler.generating import GenerateWish, generation_id
from ovam_labeler.jobs.kinds import GENERATE
from ovam_labeler.model_version import base_name, model_identity
from ovam_labeler.options import project_options
from ovam_labeler.propose import find_method
from ovam_labeler.services import Application
from ovam_labeler.tools.contract import ParsedConfig
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.tool import LabelStudioTool
from ovam_labeler.translate import translate_errors
from token_store.entities import Job, Scope

log = logging.getLogger(__name__)

#: Name of the task's field that tells one generated picture from another.
IDENTITY = "generation_id"

#: Part of a job's progress that generating takes; uploading is quick.
_GENERATING = 0.9

#: Most jobs looked through for those that wait already.
_LOOKED_AT = 10_000


class Generator:
    """Queues generate jobs and runs them (a :class:`ovam_labeler.jobs.contract.JobHandler`).  Thread-safe."""

    def __init__(self, application: Application, tool: LabelStudioTool) -> None:
        self._application = application
        self._tool = tool

    def knows(self, scope: Scope) -> bool:
        """Whether pictures can be uploaded to this project's Label Studio."""
        return self._tool.connections.knows(scope.connection)

    def queue(self, scope: Scope, wish: GenerateWish) -> list[Job]:
        """Queue a job for each picture; one that waits or runs already is not queued again.  Returns them in order.

        Raises:
            BadRequestError: the Label Studio is unknown, or the project's tasks show several pictures.
            FetchError: Label Studio or the project cannot be reached.
        """
        if not self.knows(scope):
            known = ", ".join(self._tool.connections.names()) or "none"
            raise BadRequestError(f"The connection '{scope.connection}' has no known Label Studio; known are {known}.")
        self._config(self._tool.connections.client(scope.connection), scope)
        where = {"connection": scope.connection, "project": scope.project}
        store = self._application.store
        with translate_errors():
            under_way = {
                _identity(job.payload): job
                for job in store.list_jobs(states=("queued", "running"), kinds=(GENERATE,), limit=_LOOKED_AT)
            }
            jobs = []
            for picture in wish.pictures():
                payload = {**where, **picture}
                jobs.append(under_way.get(_identity(payload)) or store.add_job(GENERATE, payload))
        self._application.jobs.notify()
        return jobs

    # -- running --------------------------------------------------------------------------------------------------
    def run(self, job: Job, progress: Progress) -> Mapping[str, Any]:
        """See :meth:`ovam_labeler.jobs.contract.JobHandler.run`.

        Returns:
            ``{"task", "generation_id", "made"}``: the task, and False for ``made`` where it was there already.
        """
        scope = Scope(str(job.payload.get("connection", "")), str(job.payload.get("project", "")))
        name = generation_id(job.payload, model_identity(self._application.settings.model))
        client = self._tool.connections.client(scope.connection)
        config = self._config(client, scope)
        task = find_task(client, scope, name)
        made = task is None
        if task is None:
            image, png, capture = self._make(scope, job.payload, progress)
            progress(_GENERATING, "Uploading")
            reference = _uploaded(client, scope, f"ovam-{image.sha256[:24]}.png", png)
            data = self._data(job.payload, image, capture, config, reference) | {IDENTITY: name}
            # Asked again at the last moment: a worker given up for dead may have come that far.
            task = find_task(client, scope, name) or client.create_task(scope.project, data)
        return {"task": task, IDENTITY: name, "made": made}

    def gave_up(self, job: Job, sentence: str) -> None:
        log.warning("The picture of '%s' was not generated: %s", str(job.payload.get("prompt"))[:80], sentence)

    def _make(self, scope: Scope, payload: Mapping[str, Any], progress: Progress) -> tuple[LoadedImage, bytes, Capture]:
        """The picture, its file and capture, which is cached with all that the project's method needs."""
        application = self._application
        with translate_errors():
            options = project_options(application.settings, application.store.get_project_options(scope))
            needs = find_method(options.method).needs(application.backend().attributor)
        making = dict(payload.get("options") or {})
        if "size" in making:
            making["size"] = tuple(making["size"])
        return application.inference.generate(
            str(payload["prompt"]),
            seed=int(payload["seed"]),
            needs=needs,
            progress=lambda fraction, message: progress(fraction * _GENERATING, message),
            **making,
        )

    def _data(
        self, payload: Mapping[str, Any], image: LoadedImage, capture: Capture, config: ParsedConfig, reference: str
    ) -> dict[str, Any]:
        """The task's data: the picture and how it was made."""
        field, info = config.images[0], capture.info
        data: dict[str, Any] = {
            field.key: [reference] if field.many else reference,
            "prompt": str(payload["prompt"]),
            "seed": int(payload["seed"]),
            "scheduler": info.scheduler,
            "steps": info.steps,
            "guidance": info.guidance,
            "size": f"{image.width}x{image.height}",
            "negative_prompt": info.negative_prompt,
            "model": base_name(self._application.settings.model),
        }
        return {key: value for key, value in data.items() if value not in (None, "")}

    def _config(self, client: LabelStudioClient, scope: Scope) -> ParsedConfig:
        config = self._tool.parse_config(str(client.project(scope.project).get("label_config") or ""))
        if len(config.images) > 1:
            raise BadRequestError(
                f"A task of project {scope} shows {len(config.images)} pictures; pictures are generated for projects whose "
                "tasks show one."
            )
        return config


def find_task(client: LabelStudioClient, scope: Scope, name: str) -> int | None:
    """The task of a generated picture; None where there is none (any more)."""
    found = client.list_tasks(scope.project, (f"data.{IDENTITY}", "equal", "String", name), size=1)
    return int(found[0]["id"]) if found else None


def _uploaded(client: LabelStudioClient, scope: Scope, name: str, png: bytes) -> str:
    """Where Label Studio serves the file; one that was uploaded under this name before is taken."""
    there = client.find_upload(scope.project, name)
    return there if there is not None else client.upload_file(scope.project, name, png)


def _identity(payload: Mapping[str, Any]) -> tuple[object, ...]:
    """What tells one picture of one project from another; the model is the same while it waits."""
    try:
        return payload["connection"], payload["project"], generation_id(payload, "")
    except (KeyError, TypeError, ValueError) as error:
        raise OvamError(f"A job to generate names no picture ({error}).") from error
