"""What the demo, the doctor and the tests ask of Label Studio's API; measured on 1.23.2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ovam_labeler.errors import FetchError
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.connection import Connection, PageMissingError
from ovam_labeler.tools.label_studio.images import ImageFetcher


class LabelStudioClient(Connection):
    """The configured Label Studio.  Thread-safe.  Every call raises FetchError or TokenRefusedError, in one sentence."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._images = ImageFetcher(self)

    def fetch_image(self, reference: str) -> bytes:
        """The bytes of an image as a task names it (path, URL or data: URI); see :meth:`ImageFetcher.fetch`."""
        return self._images.fetch(reference)

    def create_project(self, title: str, label_config: str, **fields: Any) -> dict[str, Any]:
        """Title needs 3 characters.  Predictions are shown in the label stream unless ``fields`` says otherwise."""
        body = {"title": title, "label_config": label_config, "show_collab_predictions": True, **fields}
        made: dict[str, Any] = self.call("POST", "/api/projects", json=body)
        return made

    def import_files(self, project: int, files: dict[str, bytes]) -> list[int]:
        """Upload image files (name -> bytes) as tasks; returns the ids of the project's tasks in that order."""
        for name, data in files.items():
            self.call("POST", f"/api/projects/{project}/import", files={"file": (name, data)}, timeout=120)
        return [int(task["id"]) for task in self.tasks(project)][-len(files) :]

    def upload_file(self, project: int | str, name: str, data: bytes) -> str:
        """Upload a file without making a task of it; returns where Label Studio serves it."""
        path = f"/api/projects/{project}/import?commit_to_project=false"
        made = self.call("POST", path, files={"file": (name, data)}, timeout=120)
        (number,) = made["file_upload_ids"]
        return _served(self.call("GET", f"/api/import/file-upload/{number}", timeout=60))

    def find_upload(self, project: int | str, name: str) -> str | None:
        """Where a file that this user uploaded under a name is served: Label Studio puts 8 hex digits before the name."""
        rows = self.call("GET", f"/api/projects/{project}/file-uploads?all=true", timeout=120)
        found = (row for row in rows if str(row.get("file", "")).endswith(f"-{name}"))
        return next((_served(row) for row in found), None)

    def create_task(self, project: int | str, data: Mapping[str, Any]) -> int:
        """Make a task of this data; returns its id.  Every field that the label config names must be there (else 400)."""
        path = f"/api/projects/{project}/import?return_task_ids=true"
        made = self.call("POST", path, json=[{"data": dict(data)}], timeout=120)
        return int(made["task_ids"][0])

    def tasks(self, project: int, *, page_size: int = 500) -> list[dict[str, Any]]:
        """All tasks of the project with annotations and predictions, by id."""
        rows: list[dict[str, Any]] = []
        for page in range(1, 1_000_000):
            path = f"/api/tasks?project={project}&fields=all&resolve_uri=false&page={page}&page_size={page_size}"
            answer = self.call("GET", path, timeout=120)
            rows += answer["tasks"]
            if len(rows) >= int(answer["total"]) or not answer["tasks"]:
                break
        return sorted(rows, key=lambda task: int(task["id"]))

    def annotated_tasks(self, project: int) -> list[dict[str, Any]]:
        """The project's annotated tasks as exported: id, data, annotations; without predictions."""
        found: list[dict[str, Any]] = self.call("GET", f"/api/projects/{project}/export?exportType=JSON", timeout=300)
        return found

    def task(self, task: int | str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/api/tasks/{task}")
        return found

    def project(self, project: int | str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/api/projects/{project}")
        return found

    def list_tasks(
        self, project: int | str, *filters: tuple[str, str, str, Any], order: str = "id", page: int = 1, size: int = 200
    ) -> list[dict[str, Any]]:
        """One page of tasks without annotations and predictions, but with ``annotations_ids`` where filtered by them.

        Args:
            filters: (column, operator, type, value) of the data manager, all of which must hold.
            order: column to sort by.
        """
        items = [{"filter": f"filter:tasks:{c}", "operator": o, "type": t, "value": v} for c, o, t, v in filters]
        query = json.dumps({"filters": {"conjunction": "and", "items": items}, "ordering": [f"tasks:{order}"]})
        path = f"/api/tasks?project={project}&resolve_uri=false&page={page}&page_size={size}&query={quote(query)}"
        try:
            answer = self.call("GET", path, timeout=120)
        except PageMissingError:
            return []
        return list(answer["tasks"])

    def annotations(self, task: int | str) -> list[dict[str, Any]]:
        """All annotations of a task, skips among them."""
        found: list[dict[str, Any]] = self.call("GET", f"/api/tasks/{task}/annotations/", timeout=60)
        return found

    def annotation_exists(self, annotation: int | str) -> bool:
        """Raises FetchError for any answer but 200 and 404: what is not known to be gone counts as there."""
        answer = self.raw_call("GET", f"/api/annotations/{annotation}/", timeout=60)
        if answer.status_code not in (200, 404):
            raise FetchError(f"Label Studio answered {answer.status_code} when asked for annotation {annotation}.")
        return answer.status_code == 200

    def prediction(self, prediction: int | str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/api/predictions/{prediction}/", timeout=60)
        return found

    def import_predictions(self, project: int | str, rows: list[dict[str, Any]]) -> int:
        """Store predictions ``{"task", "model_version", "score", "result"}`` at once; returns how many."""
        made = self.call("POST", f"/api/projects/{project}/import/predictions", json=rows, timeout=120)
        return int(made["created"])

    def delete_prediction(self, prediction: int | str) -> None:
        """Delete by id: deleting by version sets the project's ``model_version`` to null (measured)."""
        self.call("DELETE", f"/api/predictions/{prediction}/", timeout=60)

    def backends(self, project: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", f"/api/ml?project={project}", timeout=60)
        return found

    def add_backend(self, project: int, url: str, title: str = "OVAM Labeler", **fields: Any) -> dict[str, Any]:
        """Connect an ML backend; Label Studio asks it /health and /setup and makes its webhook."""
        made: dict[str, Any] = self.call(
            "POST", "/api/ml", json={"url": url, "project": project, "title": title, **fields}, timeout=60
        )
        return made

    def set_backend(self, backend: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
        """PATCH a backend of :meth:`backends`, e.g. its ``title``; without ``url`` and ``project`` Label Studio answers 500 (measured)."""
        body = {"url": backend["url"], "project": backend["project"], **fields}
        changed: dict[str, Any] = self.call("PATCH", f"/api/ml/{backend['id']}", json=body, timeout=60)
        return changed

    def webhooks(self, project: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", f"/api/webhooks/?project={project}")
        return found

    def secure_webhooks(self, project: int, url_prefix: str, secret: str) -> int:
        """Give the project's webhooks to ``url_prefix`` the header that carries the secret; returns how many."""
        mine = [hook for hook in self.webhooks(project) if str(hook.get("url", "")).startswith(url_prefix)]
        for hook in mine:
            headers = {**(hook.get("headers") or {}), "X-OVAM-Secret": secret}
            self.call("PATCH", f"/api/webhooks/{hook['id']}/", json={"headers": headers})
        return len(mine)

    def retrieve_predictions(self, project: int, tasks: list[int], *, timeout: float = 150.0) -> Any:
        """The data manager's action.  Its "Retrieved N predictions" is no proof that any was stored."""
        body = {
            "selectedItems": {"all": False, "included": tasks},
            "ordering": [],
            "filters": {"conjunction": "and", "items": []},
        }
        path = f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}"
        return self.call("POST", path, json=body, timeout=timeout)

    def predictions(self, task: int) -> list[dict[str, Any]]:
        """Stored predictions of a task, oldest first."""
        answer = self.call("GET", f"/api/predictions/?task={task}")
        rows = answer["results"] if isinstance(answer, dict) else answer
        return sorted(rows, key=lambda row: int(row["id"]))

    def submit_annotation(self, task: int, result: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        """Submit as the editor does; ``fields`` such as ``parent_prediction``, ``was_cancelled``, ``lead_time``."""
        made: dict[str, Any] = self.call("POST", f"/api/tasks/{task}/annotations/", json={"result": result, **fields})
        return made

    def update_annotation(self, annotation: int, result: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        changed: dict[str, Any] = self.call(
            "PATCH", f"/api/annotations/{annotation}/", json={"result": result, **fields}
        )
        return changed

    def delete_annotation(self, annotation: int) -> None:
        self.call("DELETE", f"/api/annotations/{annotation}/")

    def local_file_reference(self, relative: str) -> str:
        """How a task names a file under Label Studio's ``LOCAL_FILES_DOCUMENT_ROOT``."""
        return f"/data/local-files/?d={quote(relative)}"


def _served(upload: Mapping[str, Any]) -> str:
    """Address below Label Studio's of an upload: ``upload/2/...`` is served under ``/data/`` (measured)."""
    return "/data/" + str(upload["file"]).lstrip("/")
