"""The part of CVAT's API that its SDK 2.80 uses for a task: metadata, labels, jobs, chunks of frames, annotations.

Answers are read by the SDK's own generated client, which checks their fields.  It is no CVAT: what a real server makes
of a shape it is sent is not known here.
"""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

from token_store.entities import Scope

TOKEN = "token-of-this-test"

#: The tokens' scope in these tests.
SCOPE = Scope("cvat", "12")


class CvatTask:
    """Task 1 of a CVAT: pictures, labels, jobs; shapes as they were uploaded, each with an id.

    Attributes:
        shapes: what an annotator sees; a test edits it as the editor would.
        state: of the jobs.
        annotators: of the jobs: each but the last has one frame.
    """

    def __init__(self, pictures: dict[str, np.ndarray], labels: Sequence[dict[str, Any]]) -> None:
        self.pictures = pictures
        self.labels = [
            {"id": 11 + n, "color": "#ff0000", "attributes": [], "sublabels": [], "has_parent": False, **label}
            for n, label in enumerate(labels)
        ]
        self.shapes: list[dict[str, Any]] = []
        self.state = "in progress"
        self.annotators = ["ann"]
        self.saved = "2026-11-27T06:00:00.000000Z"
        self.asked: list[str] = []
        self._ids = 100

    def label_id(self, name: str) -> int:
        return next(int(label["id"]) for label in self.labels if label["name"] == name)

    def draw(self, frame: int, name: str, points: list[float], *, kind: str = "mask", source: str = "manual") -> None:
        self._ids += 1
        shape = {"type": kind, "label_id": self.label_id(name), "frame": frame, "points": points, "source": source}
        self.shapes.append(shape | {"id": self._ids, "attributes": [], "elements": [], "occluded": False})

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        self.asked.append(f"{method} {path}")
        if path == "/api/server/about":
            return 200, {"name": "CVAT", "description": "", "version": "2.80.0", "logo_url": "", "subtitle": ""}
        if path == "/api/labels":
            return 200, _page(self.labels)
        if path == "/api/jobs":
            return 200, _page([self._job(number, name) for number, name in enumerate(self.annotators)])
        if path == "/api/tasks/1":
            return 200, self._task()
        if path == "/api/tasks/1/data/meta":
            return 200, self._meta()
        if path == "/api/tasks/1/data/" and query.get("type") == "chunk" and query.get("quality") == "original":
            return 200, self._chunk()
        if path.rstrip("/") == "/api/tasks/1/annotations":
            if method == "GET":
                return 200, {"version": 1, "tags": [], "shapes": self.shapes, "tracks": []}
            if method == "PUT":
                self.shapes = []
            for shape in body["shapes"]:
                self._ids += 1
                self.shapes.append({"attributes": [], "elements": [], "occluded": False, **shape, "id": self._ids})
            return 200, {"version": 2, "tags": [], "shapes": self.shapes, "tracks": []}
        return 404, {"detail": "Not found."}

    def _task(self) -> dict[str, Any]:
        return {
            "id": 1, "name": "a task", "organization": None, "size": len(self.pictures), "data_chunk_size": 72, "mode": "annotation",
            "data_compressed_chunk_type": "imageset", "data_original_chunk_type": "imageset", "dimension": "2d",
            "created_date": "2026-11-27T05:00:00Z", "updated_date": "2026-11-27T05:00:00Z", "status": "annotation",
            "jobs": {"count": 1, "completed": 0, "validation": 0, "url": ""}, "labels": {"url": ""},
        }  # fmt: skip

    def _job(self, number: int, name: str) -> dict[str, Any]:
        last = number if number + 1 < len(self.annotators) else len(self.pictures) - 1
        return {
            "id": 5 + number, "task_id": 1, "start_frame": number, "stop_frame": last, "state": self.state,
            "stage": "annotation", "updated_date": self.saved, "issues": {"url": "", "count": 0}, "labels": {"url": ""},
            "assignee": {"url": "", "id": 3, "username": name, "first_name": "", "last_name": ""}, "type": "annotation",
        }  # fmt: skip

    def _meta(self) -> dict[str, Any]:
        frames = [
            {"name": name, "width": p.shape[1], "height": p.shape[0], "related_files": 0}
            for name, p in self.pictures.items()
        ]
        return {
            "chunk_size": 72, "size": len(frames), "image_quality": 70, "start_frame": 0, "stop_frame": len(frames) - 1,
            "frame_filter": "", "frames": frames, "deleted_frames": [], "chunks_updated_date": "2026-11-27T05:00:00Z",
        }  # fmt: skip

    def _chunk(self) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as chunk:
            for number, pixels in enumerate(self.pictures.values()):
                png = io.BytesIO()
                Image.fromarray(pixels).save(png, "PNG")
                chunk.writestr(f"{number:06d}.png", png.getvalue())
        return buffer.getvalue()


def _page(rows: list[Any]) -> dict[str, Any]:
    return {"count": len(rows), "next": None, "previous": None, "results": rows}


@contextmanager
def serving(task: CvatTask) -> Iterator[str]:
    """The task's server on a free port of this machine; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            given = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if parts.path != "/api/server/about" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                status, answer = 401, {"detail": "Invalid token."}
            else:
                status, answer = task.answer(self.command, parts.path, query, json.loads(given) if given else None)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            kind = "application/octet-stream" if isinstance(answer, bytes) else "application/vnd.cvat+json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_PATCH = do_POST = _do  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
