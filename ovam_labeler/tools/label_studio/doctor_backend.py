"""What the doctor asks of a connected backend: does it answer within Label Studio's limits, does its webhook send all."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import requests

from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.doctor_row import Row, without_secret
from ovam_labeler.tools.label_studio.security import SECRET_HEADER

#: Seconds that Label Studio waits: for /health before every prediction (``ML_TIMEOUT_HEALTH``), and for the webhook, in
#: the annotator's request, once and never again (``WEBHOOK_TIMEOUT``).
HEALTH_SECONDS = WEBHOOK_SECONDS = 1.0

#: Seconds that the doctor itself waits.
_PATIENCE = 5.0

#: Events that a webhook must send; Label Studio has no ANNOTATION_DELETED (singular).
ACTIONS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "START_TRAINING", "TASKS_DELETED")

#: An event that no tool sends and the server ignores.
_QUESTION = "DOCTOR_ASKS"


def answer_rows(name: str, url: str, project: Mapping[str, Any], settings: Settings) -> list[Row]:
    """How fast /health and /webhook answer, and whether the webhook takes this connection's secret.

    Nothing where this machine does not reach what Label Studio does.
    """
    secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else ""
    body = {"action": _QUESTION, "project": {"id": project["id"]}}
    rows = []
    with requests.Session() as session:
        session.trust_env = False  # a proxy does not reach this machine's own addresses
        try:
            seconds, _ = _timed(lambda: session.get(f"{url}/health", timeout=_PATIENCE))
            took, answer = _timed(
                lambda: session.post(
                    f"{url}/webhook", json=body, headers={SECRET_HEADER: secret} if secret else {}, timeout=_PATIENCE
                )
            )
        except requests.RequestException:
            return []
    where = without_secret(url)
    slow = "Give the server a core of its own, and keep OVAM_THREADS below the number of cores."
    if seconds > HEALTH_SECONDS:
        sentence = f"{where}/health took {seconds:.1f} s; Label Studio gives up after {HEALTH_SECONDS:g} s and shows no prediction."
        rows.append(Row(f"{name} health", False, sentence, slow))
    if answer.status_code in (401, 403):
        sentence = f"{where}/webhook refuses this connection's secret ({answer.status_code}), so corrections are lost, silently."
        fix = "Start the server with the OVAM_WEBHOOK_SECRET of this shell  # or run: ovam-labeler connect again"
        rows.append(Row(f"{name} webhook", False, sentence, fix))
    elif took > WEBHOOK_SECONDS:
        sentence = f"{where}/webhook took {took:.1f} s; Label Studio waits {WEBHOOK_SECONDS:g} s, once, while the annotator waits."
        rows.append(Row(f"{name} webhook", False, sentence, slow))
    return rows


def webhook_rows(client: LabelStudioClient, name: str, where: str, hook: Mapping[str, Any]) -> list[Row]:
    """Whether the webhook sends every event that is read, with its body."""
    fix = f"{client.url}/projects/{hook.get('project')}/settings/webhooks: "
    rows = []
    if hook.get("send_payload") is False:
        sentence = f"{where} has a webhook that sends events without their payload, from which nothing can be learned."
        rows.append(Row(f"{name} webhook", False, sentence, fix + "switch 'Send payload' on"))
    if hook.get("send_for_all_actions") is False:
        chosen = hook.get("actions") or []
        if missing := [action for action in ACTIONS if action not in chosen]:
            sentence = f"{where} has a webhook that does not send {', '.join(missing)}."
            rows.append(Row(f"{name} webhook", False, sentence, fix + "switch 'Send for all actions' on"))
    return rows


def _timed(ask: Any) -> tuple[float, requests.Response]:
    began = time.perf_counter()
    answer: requests.Response = ask()
    return time.perf_counter() - began, answer
