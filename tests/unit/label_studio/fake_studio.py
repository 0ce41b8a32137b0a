"""Label Studio 1.23.2's API as measured, in memory: projects, tasks, annotations, predictions, webhooks.

Answers have the shapes and the quirks of the real one (``docs/label_studio.md``): an annotation touches its task's
``updated_at``, a bulk import of predictions does not; a deleted prediction as ``parent_prediction`` is 400; a page past
the last is 404; a light task list names annotation ids only where it is filtered by them.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from protocol_helpers import CONFIG, captured, data_uri

from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.client import LabelStudioClient

_ROUTES: list[tuple[str, re.Pattern[str], str]] = [
    ("GET", re.compile(r"/api/projects/(\d+)/?"), "_project"),
    ("PATCH", re.compile(r"/api/projects/(\d+)/?"), "_change_project"),
    ("GET", re.compile(r"/api/tasks/?"), "_tasks"),
    ("GET", re.compile(r"/api/tasks/(\d+)/?"), "_task"),
    ("GET", re.compile(r"/api/tasks/(\d+)/annotations/"), "_annotations"),
    ("POST", re.compile(r"/api/tasks/(\d+)/annotations/"), "_annotate"),
    ("GET", re.compile(r"/api/annotations/(\d+)/"), "_annotation"),
    ("PATCH", re.compile(r"/api/annotations/(\d+)/"), "_change_annotation"),
    ("DELETE", re.compile(r"/api/annotations/(\d+)/"), "_delete_annotation"),
    ("GET", re.compile(r"/api/predictions/?"), "_predictions"),
    ("GET", re.compile(r"/api/predictions/(\d+)/"), "_prediction"),
    ("DELETE", re.compile(r"/api/predictions/(\d+)/"), "_delete_prediction"),
    ("POST", re.compile(r"/api/projects/(\d+)/import/predictions"), "_import_predictions"),
    ("POST", re.compile(r"/api/projects/(\d+)/import"), "_import"),
    ("GET", re.compile(r"/api/projects/(\d+)/file-uploads"), "_uploads"),
    ("GET", re.compile(r"/api/import/file-upload/(\d+)"), "_upload"),
    ("GET", re.compile(r"/api/ml/?"), "_backends"),
    ("PATCH", re.compile(r"/api/ml/(\d+)"), "_change_backend"),
]


def filter_moment(text: str) -> datetime:
    """The one form of a moment that a filter takes; another is an internal error of Label Studio's."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")


class FakeStudio:
    """One Label Studio with project 2.  Thread-safe, as one request after the other.

    Attributes:
        deliver: given every webhook event's body, within the request that caused it.
        down: while True nothing answers, as when Label Studio is restarted.
        calls: (method, path) of every request.
    """

    def __init__(self, tasks: int = 3, config: str = CONFIG) -> None:
        self.deliver: Callable[[dict[str, Any]], None] = lambda _event: None
        self.down = False
        self.calls: list[tuple[str, str]] = []
        self._lock = threading.RLock()
        self._clock = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
        self._ids = {"annotation": 0, "prediction": 0}
        self.project: dict[str, Any] = {**captured("webhook_PROJECT_UPDATED")["project"], "id": 2}
        self.project |= {"label_config": config, "sampling": "Sequential sampling"}
        self.backends: list[dict[str, Any]] = []
        self.annotations: dict[int, dict[str, Any]] = {}
        self.predictions: dict[int, dict[str, Any]] = {}
        self.tasks: dict[int, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        for number in range(1, tasks + 1):
            data = {"image": data_uri(shade=number % 256)}
            self.tasks[number] = {"id": number, "data": data, "project": 2, "overlap": 1, "updated_at": self._now()}

    def client(self, settings: Settings | None = None) -> LabelStudioClient:
        return _FakeClient(self, settings or Settings(label_studio_url="http://studio", _env_file=None))

    # -- what annotators do ---------------------------------------------------------------------------------------
    def submit(self, task: int, result: list[dict[str, Any]], **fields: Any) -> int:
        return int(self.request("POST", f"/api/tasks/{task}/annotations/", {"result": result, **fields})[1]["id"])

    def update(self, annotation: int, result: list[dict[str, Any]], **fields: Any) -> None:
        self.request("PATCH", f"/api/annotations/{annotation}/", {"result": result, **fields})

    def delete(self, annotation: int) -> None:
        self.request("DELETE", f"/api/annotations/{annotation}/", None)

    def delete_task(self, task: int) -> None:
        with self._lock:
            del self.tasks[task]
            self.annotations = {k: a for k, a in self.annotations.items() if a["task"] != task}
            self._send("TASKS_DELETED", tasks=[{"id": task}])

    def set_config(self, config: str) -> None:
        self.request("PATCH", "/api/projects/2", {"label_config": config})

    @contextmanager
    def silent(self) -> Iterator[None]:
        """While this holds, every event is lost."""
        deliver, self.deliver = self.deliver, lambda _event: None
        try:
            yield
        finally:
            self.deliver = deliver

    # -- the API --------------------------------------------------------------------------------------------------
    def request(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if self.down:
            raise requests.ConnectionError("down")
        parts = urlsplit(path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        with self._lock:
            self.calls.append((method, parts.path))
            for verb, pattern, name in _ROUTES:
                if verb == method and (match := pattern.fullmatch(parts.path)):
                    answer: tuple[int, Any] = getattr(self, name)(*map(int, match.groups()), query=query, body=body)
                    return answer[0], json.loads(json.dumps(answer[1]))
        return 404, {"detail": "Not found."}

    def _project(self, project: int, **_: Any) -> tuple[int, Any]:
        return (200, self.project) if project == 2 else (404, {"detail": "Not found."})

    def _change_project(self, project: int, body: Any, **_: Any) -> tuple[int, Any]:
        self.project |= {**body, "updated_at": self._now()}
        self._send("PROJECT_UPDATED")
        return 200, self.project

    def _tasks(self, query: Mapping[str, str], **_: Any) -> tuple[int, Any]:
        asked = json.loads(query.get("query", "{}"))
        filters = asked.get("filters", {}).get("items", [])
        rows = [self._light(task, filters) for task in self.tasks.values() if self._matches(task, filters)]
        order = (asked.get("ordering") or ["tasks:id"])[0]
        column = order.removeprefix("tasks:")
        rows.sort(key=lambda row: (row[column] is None, row[column], row["id"]))  # empty ones last (measured)
        size, page = int(query.get("page_size", 30)), int(query.get("page", 1))
        found = rows[(page - 1) * size : page * size]
        if not found and page > 1:
            return 404, {"detail": "Invalid page."}
        return 200, {"total": len(rows), "total_annotations": 0, "total_predictions": 0, "tasks": found}

    def _task(self, task: int, **_: Any) -> tuple[int, Any]:
        return (200, self.tasks[task]) if task in self.tasks else (404, {"detail": "Not found."})

    def _light(self, task: dict[str, Any], filters: list[dict[str, Any]]) -> dict[str, Any]:
        mine = [a for a in self.annotations.values() if a["task"] == task["id"]]
        wanted = any(f["filter"] == "filter:tasks:annotations_ids" for f in filters)
        cancelled = sum(bool(a["was_cancelled"]) for a in mine)
        return {
            **task,
            "total_annotations": len(mine) - cancelled,
            "cancelled_annotations": cancelled,
            "annotations_ids": ",".join(str(a["id"]) for a in reversed(mine)) if wanted else "",
            "is_labeled": len(mine) - cancelled >= task["overlap"],
            "predictions_score": self._score(task["id"]),
            "drafts": [],
        }

    def _score(self, task: int) -> float | None:
        """Mean score of the task's predictions by the project's model version, as the data manager's column has it."""
        version = self.project["model_version"]
        mine = [p["score"] for p in self.predictions.values() if p["task"] == task and p["model_version"] == version]
        return sum(mine) / len(mine) if mine else None

    def _matches(self, task: dict[str, Any], filters: list[dict[str, Any]]) -> bool:
        row = self._light(task, [{"filter": "filter:tasks:annotations_ids"}])
        for one in filters:
            name = one["filter"].removeprefix("filter:tasks:")
            value = row["data"].get(name.removeprefix("data.")) if name.startswith("data.") else row[name]
            holds = {
                "greater_or_equal": lambda v, w: datetime.fromisoformat(v).replace(tzinfo=None) >= filter_moment(w),
                "equal": lambda v, w: v == w,
                "empty": lambda v, w: (not v) == w,
            }[one["operator"]](value, one["value"])
            if not holds:
                return False
        return True

    def _annotations(self, task: int, **_: Any) -> tuple[int, Any]:
        if task not in self.tasks:
            return 404, {"detail": "Not found."}
        return 200, [a for a in self.annotations.values() if a["task"] == task]

    def _annotate(self, task: int, body: Any, **_: Any) -> tuple[int, Any]:
        parent = body.get("parent_prediction")
        if parent is not None and parent not in self.predictions:
            return 400, {
                "validation_errors": {"parent_prediction": [f'Invalid pk "{parent}" - object does not exist.']}
            }
        self._ids["annotation"] += 1
        now = self._now()
        made = {
            **captured("webhook_ANNOTATION_CREATED")["annotation"],
            "was_cancelled": False,
            "parent_prediction": None,
            **body,
            "id": self._ids["annotation"],
            "task": task,
            "created_at": now,
            "updated_at": now,
        }
        self.annotations[made["id"]] = made
        self._touch(task)
        self._send("ANNOTATION_CREATED", annotation=made, task=self.tasks[task])
        return 201, made

    def _annotation(self, annotation: int, **_: Any) -> tuple[int, Any]:
        found = self.annotations.get(annotation)
        return (200, found) if found else (404, {"detail": "Not found."})

    def _change_annotation(self, annotation: int, body: Any, **_: Any) -> tuple[int, Any]:
        found = self.annotations[annotation]
        self.annotations[annotation] = found = {**found, **body, "updated_at": self._now()}
        self._touch(found["task"])
        self._send("ANNOTATION_UPDATED", annotation=found, task=self.tasks[found["task"]])
        return 200, found

    def _delete_annotation(self, annotation: int, **_: Any) -> tuple[int, Any]:
        found = self.annotations.pop(annotation, None)
        if found is None:
            return 404, {"detail": "Not found."}
        self._touch(found["task"])
        self._send("ANNOTATIONS_DELETED", annotations=[{"id": annotation}])
        return 204, None

    def _predictions(self, query: Mapping[str, str], **_: Any) -> tuple[int, Any]:
        return 200, [p for p in self.predictions.values() if p["task"] == int(query["task"])]

    def _prediction(self, prediction: int, **_: Any) -> tuple[int, Any]:
        found = self.predictions.get(prediction)
        return (200, found) if found else (404, {"detail": "Not found."})

    def _delete_prediction(self, prediction: int, **_: Any) -> tuple[int, Any]:
        found = self.predictions.pop(prediction, None)
        if found is None:
            return 404, {"detail": "Not found."}
        self._touch(found["task"])
        return 204, None

    def _import_predictions(self, project: int, body: Any, **_: Any) -> tuple[int, Any]:
        for row in body:
            self.add_prediction(row)
        return 201, {"created": len(body)}

    def add_prediction(self, row: Mapping[str, Any]) -> int:
        self._ids["prediction"] += 1
        number = self._ids["prediction"]
        self.predictions[number] = {**row, "id": number, "project": 2, "created_at": self._now()}
        return number

    def _import(self, project: int, query: Mapping[str, str], body: Any, **_: Any) -> tuple[int, Any]:
        """A file (``{"file": (name, bytes)}``) without a task, or tasks; as measured, answers name what was made."""
        if "file" in body:
            assert query == {"commit_to_project": "false"}
            name, data = body["file"]
            self.files[f"upload/2/{len(self.files):08x}-{name}"] = data
            return 201, {"task_count": 1, "file_upload_ids": [len(self.files)]}
        if any("image" not in row["data"] for row in body):
            return 400, {"detail": "Validation error"}
        first = max(self.tasks, default=0) + 1
        for number, row in enumerate(body, first):
            self.tasks[number] = {"id": number, "project": 2, "overlap": 1, "updated_at": self._now(), **row}
        return 201, {"task_count": len(body), "task_ids": list(range(first, first + len(body)))}

    def _uploads(self, project: int, query: Mapping[str, str], **_: Any) -> tuple[int, Any]:
        assert query == {"all": "true"}, "without it, only the uploads of a draft project are listed (measured)"
        return 200, [{"id": n, "file": f, "size": len(d)} for n, (f, d) in enumerate(self.files.items(), 1)]

    def _upload(self, upload: int, **_: Any) -> tuple[int, Any]:
        return 200, {"id": upload, "file": list(self.files)[upload - 1]}

    def _backends(self, **_: Any) -> tuple[int, Any]:
        return 200, self.backends

    def _change_backend(self, backend: int, body: Any, **_: Any) -> tuple[int, Any]:
        if not {"url", "project"} <= set(body):
            return 500, {"detail": "MLBackend.healthcheck_() missing 1 required positional argument: 'url'"}  # measured
        (found,) = [b for b in self.backends if b["id"] == backend]
        if self.project["model_version"] == found["title"] and "title" in body:
            self.project["model_version"] = body["title"]  # measured
        found |= body
        return 200, found

    def _touch(self, task: int) -> None:
        if task in self.tasks:
            self.tasks[task]["updated_at"] = self._now()

    def _send(self, action: str, **fields: Any) -> None:
        self.deliver(json.loads(json.dumps({"action": action, **fields, "project": self.project})))

    def _now(self) -> str:
        self._clock += timedelta(milliseconds=137)
        return self._clock.isoformat().replace("+00:00", "Z")


class _FakeClient(LabelStudioClient):
    """Our own client, its HTTP replaced."""

    def __init__(self, studio: FakeStudio, settings: Settings) -> None:
        super().__init__(settings)
        self._studio = studio

    def fetch_image(self, reference: str) -> bytes:
        uploaded = self._studio.files.get(reference.removeprefix("/data/"))
        return super().fetch_image(reference) if uploaded is None else uploaded

    def raw_call(self, method: str, path: str, *, timeout: float | None = None, **kwargs: Any) -> requests.Response:
        from ovam_labeler.errors import FetchError

        try:
            status, body = self._studio.request(method, path, kwargs.get("json", kwargs.get("files")))
        except requests.RequestException as error:
            raise FetchError(f"Label Studio at {self.url} is not reachable; is it running?") from error
        answer = requests.Response()
        answer.status_code = status
        answer._content = b"" if body is None else json.dumps(body).encode()
        return answer
