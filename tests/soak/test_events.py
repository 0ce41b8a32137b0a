"""2,000 webhooks of the real Label Studio over a bad network, Label Studio restarted in between: each correction once."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import SecretStr
from server_process import ServerProcess, wait_for
from shaking_proxy import DOUBLED, LOST, ShakingProxy
from studio_loop import png
from test_label_studio_real import ENVIRONMENT, SECRET

from ovam_labeler.demo.label_studio_process import LabelStudio, ensure_installed
from ovam_labeler.demo.project import label_config
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.rle import encode_mask
from token_store import open_store
from token_store.entities import Scope

EVENTS = int(os.environ.get("OVAM_SOAK_EVENTS", "2000"))
TASKS = 40
LABELS = ("disc", "bar")

#: What annotators do, by share: they come back to their annotations more often than they begin one.
DEEDS = {"submit": 2, "update": 6, "delete": 1, "skip": 1}


def picture(number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """An image with a red disc and a blue bar, and their masks."""
    chance = np.random.default_rng(number)
    y, x = np.mgrid[:96, :128]
    top, left = chance.integers(25, 70), chance.integers(25, 50)
    disc = (y - top) ** 2 + (x - left) ** 2 < 18**2
    bar = (x > 85) & (x < 105) & (y > 10) & (y < 40 + 2 * (number % 20))
    pixels = chance.integers(120, 160, (96, 128, 3)).astype(np.uint8)
    pixels[disc], pixels[bar] = (200, 30, 40), (30, 60, 210)
    return pixels, {"disc": disc, "bar": bar}


class Annotators:
    """They do one thing after the other; each sends one event."""

    def __init__(self, client: LabelStudioClient, masks: dict[int, dict[str, np.ndarray]], seed: int) -> None:
        self.client, self.masks, self.chance = client, masks, random.Random(seed)
        self.living: dict[int, int] = {}
        self.done: Counter[str] = Counter()

    def act(self) -> None:
        chance = self.chance
        deed = chance.choices(tuple(DEEDS), tuple(DEEDS.values()))[0] if self.living else "submit"
        self.done[deed] += 1
        task = chance.choice(sorted(self.masks))
        match deed:
            case "submit":
                self.living[int(self.client.submit_annotation(task, self.drawn(task))["id"])] = task
            case "skip":
                self.client.submit_annotation(task, [], was_cancelled=True)
            case "update":
                annotation = chance.choice(sorted(self.living))
                self.client.update_annotation(annotation, self.drawn(self.living[annotation]))
            case "delete":
                annotation = chance.choice(sorted(self.living))
                del self.living[annotation]
                self.client.delete_annotation(annotation)

    def drawn(self, task: int) -> list[dict[str, Any]]:
        """One label's region, drawn a little differently each time."""
        label = self.chance.choice(LABELS)
        mask = np.roll(self.masks[task][label], self.chance.randint(-2, 2), axis=self.chance.randint(0, 1))
        value = {"format": "rle", "rle": encode_mask(mask), "brushlabels": [label]}
        size = {"original_width": mask.shape[1], "original_height": mask.shape[0], "image_rotation": 0}
        kind = {"type": "brushlabels", "from_name": "tag", "to_name": "image", "origin": "manual"}
        return [{"id": "drawn", "value": value} | kind | size]


def made(client: LabelStudioClient, tasks: list[int]) -> dict[str, tuple[tuple[str, ...], str]]:
    """Every correction that stands in Label Studio: annotation id -> its labels and when it was last changed."""
    return {
        str(annotation["id"]): (
            tuple(region["value"]["brushlabels"][0] for region in annotation["result"]),
            annotation["updated_at"],
        )
        for task in tasks
        for annotation in client.annotations(task)
        if not annotation["was_cancelled"]
    }


def test_corrections_learned_are_corrections_made_each_once(tmp_path: Path) -> None:
    seed = int(os.environ.get("OVAM_SOAK_SEED", "0"))
    ensure_installed(ENVIRONMENT)
    studio = LabelStudio(ENVIRONMENT, tmp_path / "studio", tmp_path / "files", ENVIRONMENT / "templates")
    settings = Settings(
        data_dir=tmp_path / "state",
        label_studio_url=studio.url,
        label_studio_token=SecretStr(studio.token),
        fetch_timeout=120,
        _env_file=None,
    )
    environment = {
        "OVAM_LABEL_STUDIO_URL": studio.url,
        "OVAM_LABEL_STUDIO_TOKEN": studio.token,
        "OVAM_WEBHOOK_SECRET": SECRET,
        "OVAM_RECONCILE_SECONDS": "20",
    }
    client = LabelStudioClient(settings)
    studio.start()
    try:
        with (
            ServerProcess(tmp_path / "state", tmp_path / "server.log", **environment) as server,
            ShakingProxy(server.url, seed) as network,
        ):
            wait_for(lambda: server.status()["state"] == "ready", "the base model")
            project = int(client.create_project("events", label_config(LABELS))["id"])
            pictures = [picture(n) for n in range(TASKS)]
            tasks = sorted(client.import_files(project, {f"{n}.png": png(p) for n, (p, _) in enumerate(pictures)}))
            hook = {"project": project, "url": f"{network.url}/webhook", "send_payload": True}
            client.call("POST", "/api/webhooks/", json=hook | {"headers": {"X-OVAM-Secret": SECRET}})
            annotators = Annotators(client, {t: m for t, (_, m) in zip(tasks, pictures, strict=True)}, seed)
            began = time.monotonic()
            for number in range(EVENTS):
                annotators.act()
                if number == EVENTS // 2:
                    studio.stop()
                    studio.start()
            network.flush()
            seconds = time.monotonic() - began
            truth = made(client, tasks)
            store = open_store(tmp_path / "state" / "ovam.sqlite3", migrate=False)
            try:
                scope = Scope("default", str(project))

                def learned() -> dict[str, tuple[tuple[str, ...], str]]:
                    found = store.list_corrections(scope, states=("learned",), limit=100_000)
                    return {c.annotation_id: (c.labels, c.updated_at) for c in found}

                wait_for(lambda: server.idle() and learned() == truth, "every correction to be learned", 3600)
                jobs = store.list_jobs(kinds=("learn",), limit=100_000)
                times = Counter(job.payload["correction_id"] for job in jobs)
                standing = store.list_corrections(scope, states=("learned",), limit=100_000)
                unlearned = store.list_corrections(scope, states=("pending", "failed"), limit=100_000)
            finally:
                store.close()
            print(
                f"{network.sent} events in {seconds:.0f} s ({dict(annotators.done)}), {network.doubled} doubled, "
                f"{network.lost} lost; corrections made {len(truth)}, learned {len(standing)}, "
                f"twice {sum(count > 1 for count in times.values())}; all learned {time.monotonic() - began:.0f} s after the first event"
            )
            assert network.sent == EVENTS and network.refused == []
            assert network.lost > LOST * EVENTS / 2 and network.doubled > DOUBLED * EVENTS / 2
            assert unlearned == [] and len(standing) == len(truth)
            assert set(times.values()) == {1}, "a correction was learned twice"
            assert {job.state for job in jobs} <= {"done", "cancelled"}, "a superseded one may be given up"
            assert "Traceback" not in server.text()
    finally:
        studio.stop()
