"""The demo's project in Label Studio: labels, pictures, backend; and reading its predictions back."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from ovam_labeler.errors import OvamError
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.rle import decode_mask

#: Tasks asked for in one request: a few seconds of work, far below Label Studio's limit of 100 s.
BATCH = 16


class DemoError(OvamError):
    """The demo could not be set up; one sentence says what Label Studio answered."""

    code = "demo"
    status = 503


def label_config(labels: Sequence[str]) -> str:
    """Brush labels of well-spread colours over one image."""
    lines = []
    for i, label in enumerate(labels):
        red, green, blue = colorsys.hsv_to_rgb((i * 0.381966) % 1, 0.75 if i % 2 else 0.95, 0.95 if i % 3 else 0.75)
        colour = f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
        lines.append(f'    <Label value={quoteattr(label)} background="{colour}"/>')
    return "\n".join(
        [
            "<View>",
            '  <Image name="image" value="$image" zoom="true" zoomControl="true"/>',
            '  <BrushLabels name="tag" toName="image">',
            *lines,
            "  </BrushLabels>",
            "</View>",
        ]
    )


class DemoProject:
    """One project; ``tasks`` maps a picture's name (the file's stem) to its task id."""

    def __init__(self, client: LabelStudioClient, project: int, tasks: Mapping[str, int]) -> None:
        self.client, self.id, self.tasks = client, project, dict(tasks)

    @classmethod
    def create(cls, client: LabelStudioClient, title: str, labels: Sequence[str]) -> DemoProject:
        """An empty project with those labels; predictions are shown in the label stream."""
        made = client.create_project(title, label_config(labels), sampling="Sequential sampling")
        return cls(client, int(made["id"]), {})

    @classmethod
    def find(cls, client: LabelStudioClient, title: str) -> DemoProject | None:
        """The project of that title with its tasks, or None."""
        answer = client.call("GET", "/api/projects?page_size=1000")
        rows = answer["results"] if isinstance(answer, dict) else answer
        for row in rows:
            if row["title"] == title:
                project = cls(client, int(row["id"]), {})
                project.read_tasks()
                return project
        return None

    def import_folder(
        self, folder: Path, root: Path, pictures: Mapping[str, Path], prompts: Mapping[str, str] | None = None
    ) -> None:
        """Make tasks of PNG files under ``folder``, which Label Studio serves as local files.

        Args:
            root: Label Studio's local-files root; ``folder`` lies below it.
            pictures: name -> file.
            prompts: name -> the text a picture was generated from, put into the task's data.
        """
        prompts = prompts or {}
        storage = {"project": self.id, "title": folder.name, "path": str(folder.absolute()), "use_blob_urls": True}
        # A storage that covers the folder is what allows its files to be served; it is not synchronised.
        self.client.call("POST", "/api/storages/localfiles", json={**storage, "regex_filter": r".*\.png$"})
        tasks = []
        for name, path in pictures.items():
            relative = path.absolute().relative_to(root.absolute()).as_posix()
            data = {"image": self.client.local_file_reference(relative), "picture": name}
            tasks.append({"data": data | ({"prompt": prompts[name]} if name in prompts else {})})
        self.client.call("POST", f"/api/projects/{self.id}/import", json=tasks, timeout=120)
        self.read_tasks()
        if lost := set(pictures) - set(self.tasks):
            raise DemoError(f"Label Studio imported {len(pictures) - len(lost)} of {len(pictures)} pictures.")

    def read_tasks(self) -> None:
        """Read the names of all tasks again."""
        self.tasks = {}
        for task in self.client.tasks(self.id):
            if (name := task.get("data", {}).get("picture")) is not None:
                self.tasks[str(name)] = int(task["id"])

    def connect(self, backend_url: str) -> None:
        """Connect the backend, in place of those connected earlier.

        Raises:
            DemoError: Label Studio connected it without its webhook.
        """
        # Deleting a backend leaves its webhook behind; both would point to a port that is gone.
        for backend in self.client.backends(self.id):
            self.client.call("DELETE", f"/api/ml/{backend['id']}", timeout=60)
        for hook in self.client.webhooks(self.id):
            self.client.call("DELETE", f"/api/webhooks/{hook['id']}/")
        self.client.add_backend(self.id, backend_url)
        if not any(str(hook.get("url", "")).startswith(backend_url) for hook in self.client.webhooks(self.id)):
            raise DemoError("Label Studio connected the backend but made no webhook: corrections would not arrive.")

    def retrieve(self, names: Sequence[str]) -> None:
        """Have Label Studio ask the backend for these pictures' predictions."""
        self.client.retrieve_predictions(self.id, [self.tasks[n] for n in names])

    def ask_training(self) -> None:
        """Send START_TRAINING, upon which the backend looks for annotations whose events were lost."""
        for backend in self.client.backends(self.id):
            self.client.call("POST", f"/api/ml/{backend['id']}/train", json={}, timeout=120)

    def predictions(self) -> dict[str, dict[str, Any]]:
        """Newest stored prediction of every picture that has one, in one request."""
        names = {task: name for name, task in self.tasks.items()}
        newest: dict[str, dict[str, Any]] = {}
        for task in self.client.tasks(self.id):
            stored = sorted(task.get("predictions") or [], key=lambda p: int(p["id"]))
            if stored and int(task["id"]) in names:
                newest[names[int(task["id"])]] = stored[-1]
        return newest


def masks_of(prediction: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Label -> bool (H, W): the union of the label's brush regions."""
    masks: dict[str, np.ndarray] = {}
    for region in prediction["result"]:
        height, width = int(region["original_height"]), int(region["original_width"])
        mask = decode_mask(region["value"]["rle"], height, width)
        for label in region["value"]["brushlabels"]:
            masks[label] = masks[label] | mask if label in masks else mask
    return masks
