"""What ``ovam-labeler doctor`` asks of the configured Label Studio: each measured trap, in one sentence with its mending.

A check changes nothing in Label Studio and never shows a secret.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ovam_labeler.errors import OvamError
from ovam_labeler.settings import Settings
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.credentials import TokenRefusedError, is_personal_access_token
from ovam_labeler.tools.label_studio.doctor_backend import answer_rows, webhook_rows
from ovam_labeler.tools.label_studio.doctor_project import project_rows
from ovam_labeler.tools.label_studio.doctor_row import ALLOW_PRIVATE, Row, without_secret
from ovam_labeler.tools.label_studio.security import SECRET_HEADER

#: An address on this machine where nothing listens: allowed ones fail Label Studio's health check and store nothing.
_PROBE = "http://127.0.0.1:9"

#: What the protocol was measured against, and seconds after which it gives up a prediction (``ML_TIMEOUT_PREDICT``).
MEASURED, PREDICT_SECONDS = "1.23.2", 100

#: Most projects looked at.
_PROJECTS = 100


def run_checks(settings: Settings, client: LabelStudioClient | None = None, others: Collection[str] = ()) -> list[Row]:
    """All checks, in the order a person would mend them; those that hang on a failed one are left out.

    Args:
        others: further stored connections; backends under ``/c/<one of them>`` are looked at with that one's secret.
    """
    try:
        client = client or LabelStudioClient(settings)
    except OvamError as error:
        return [Row("label studio", False, str(error), "export OVAM_LABEL_STUDIO_URL=http://localhost:8080")]
    reached = reachable(client)
    if not reached.ok:
        return [reached]
    accepted = token(client)
    if not accepted.ok:
        return [reached, accepted]
    rows = [reached, accepted]
    try:
        rows += server_rows(client, settings)
        projects = _projects(client)
        rows.append(private_addresses(client, projects))
        rows += backends_and_webhooks(client, projects, settings, others)
    except OvamError as error:
        rows.append(Row("label studio api", False, str(error), "Look at Label Studio's own log."))
    return rows


def reachable(client: LabelStudioClient) -> Row:
    """Label Studio answers at ``OVAM_LABEL_STUDIO_URL``."""
    start = f"label-studio start  # or: export OVAM_LABEL_STUDIO_URL=... (now {client.url})"
    try:
        answer = client.session().get(f"{client.url}/health", timeout=10, allow_redirects=False)
    except OvamError as error:
        return Row("label studio", False, str(error), start)
    except Exception:
        return Row("label studio", False, f"Label Studio does not answer at {client.url}.", start)
    if answer.status_code != 200:
        sentence = f"{client.url}/health answers {answer.status_code}: it is no Label Studio, or not its base address."
        return Row("label studio", False, sentence, start)
    return Row("label studio", True, f"Label Studio answers at {client.url}.")


def token(client: LabelStudioClient) -> Row:
    """Label Studio takes ``OVAM_LABEL_STUDIO_TOKEN``."""
    make = "Label Studio > Account & Settings > Personal Access Token, then: export OVAM_LABEL_STUDIO_TOKEN=..."
    kind = client.credentials.token
    if not kind:
        return Row(
            "label studio token", False, "OVAM_LABEL_STUDIO_TOKEN is not set, so uploaded images cannot be read.", make
        )
    try:
        client.call("GET", "/api/current-user/whoami")
    except TokenRefusedError as error:
        if is_personal_access_token(kind):
            return Row("label studio token", False, str(error), make)
        return Row(
            "label studio token",
            False,
            "Label Studio refuses the legacy token in OVAM_LABEL_STUDIO_TOKEN (401): it is wrong, or legacy tokens are off, "
            "as in every new installation.",
            f"{make}  # or start Label Studio with LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN=true",
        )
    except OvamError as error:
        return Row("label studio token", False, str(error), make)
    what = "personal access token" if is_personal_access_token(kind) else "legacy token"
    return Row("label studio token", True, f"Label Studio takes the {what}.")


def server_rows(client: LabelStudioClient, settings: Settings) -> list[Row]:
    """Its version beside the one that was measured, and whether our time limit fits its own."""
    rows = []
    try:
        release = str(client.call("GET", "/api/version", timeout=10).get("release") or "")
    except OvamError:
        release = ""
    if release and not release.startswith(MEASURED.rpartition(".")[0] + "."):
        sentence = f"Label Studio {release} runs here; this program was measured against {MEASURED}."
        rows.append(Row("label studio version", None, sentence))
    if settings.predict_budget >= PREDICT_SECONDS:
        sentence = (
            f"OVAM_PREDICT_BUDGET is {settings.predict_budget:g} s, but Label Studio gives a prediction up after "
            f"{PREDICT_SECONDS} s (the backend's own 'timeout' is ignored), and says that it was retrieved."
        )
        fix = "export OVAM_PREDICT_BUDGET=60  # or start Label Studio with a larger ML_TIMEOUT_PREDICT"
        rows.append(Row("time limit", False, sentence, fix))
    return rows


def private_addresses(client: LabelStudioClient, projects: Sequence[Mapping[str, Any]]) -> Row:
    """Label Studio may connect to backends at private addresses, which it refuses by default."""
    name = "private addresses"
    if not projects:
        return Row(name, None, "There is no project yet to ask with.")
    body = {"url": _PROBE, "project": projects[0]["id"], "title": "doctor"}
    answer = client.raw_call("POST", "/api/ml", json=body, timeout=60)
    if "reserved network address" in answer.text:
        return Row(
            name,
            False,
            "Label Studio refuses backends at private addresses (localhost, Docker and home networks).",
            f"Start Label Studio with {ALLOW_PRIVATE} (ML_BLOCK_LOCAL_IP=false alone connects the backend without its webhook).",
        )
    if answer.status_code == 400:
        return Row(name, True, "Label Studio may connect to backends at private addresses.")
    return Row(name, None, f"Label Studio answered {answer.status_code} to the question; it could not be told.")


def backends_and_webhooks(
    client: LabelStudioClient,
    projects: Sequence[Mapping[str, Any]],
    settings: Settings,
    others: Collection[str] = (),
) -> list[Row]:
    """Each project's backend of ours, its webhook, the webhook's secret, and uncertainty ordering."""
    hooks = client.call("GET", "/api/webhooks/")
    rows: list[Row] = []
    urls: dict[object, list[str]] = {}
    for project in projects:
        found = client.backends(int(project["id"]))
        backends = [b for b in found if _ours(b) and _connection(str(b.get("url", ""))) not in others]
        urls[project["id"]] = [str(b.get("url", "")).rstrip("/") for b in backends]
        for backend in backends:
            # A webhook without a project is the whole organisation's.
            mine = [h for h in hooks if h.get("project") in (project["id"], None)]
            rows += _backend_rows(client, project, backend, mine, settings)
        if len(backends) > 1:
            rows.append(
                Row(
                    f"project {project['id']} backends",
                    False,
                    f"Project '{project.get('title', '')}' has {len(backends)} backends of ours: Label Studio asks each of "
                    "them, and stores every prediction as often.",
                    f"{client.url}/projects/{project['id']}/settings/ml: delete all but one",
                )
            )
    rows += _orphans(client, hooks, urls)
    if not any(urls.values()):
        rows.append(
            Row(
                "backend",
                False,
                "No project of this Label Studio has this backend connected.",
                "Project > Settings > Model > Connect Model, URL http://127.0.0.1:9090",
            )
        )
    return rows


def _ours(backend: Mapping[str, Any]) -> bool:
    return str(backend.get("model_version") or "").startswith("ovam-")


def _connection(url: str) -> str:
    """The connection that a backend's address names; ``""`` for one without ``/c/``."""
    _, mark, name = urlsplit(url).path.rstrip("/").rpartition("/c/")
    return name if mark else ""


def _orphans(
    client: LabelStudioClient, hooks: Sequence[Mapping[str, Any]], urls: Mapping[object, Sequence[str]]
) -> list[Row]:
    """Webhooks to us of projects whose backend was deleted: Label Studio leaves them."""
    known = {f"{url}/webhook" for there in urls.values() for url in there}
    rows = []
    for hook in hooks:
        project, url = hook.get("project"), str(hook.get("url", "")).rstrip("/")
        left = project in urls and url in known and url.removesuffix("/webhook") not in urls[project]
        if left and hook.get("is_active"):
            sentence = (
                f"Project {project} sends its annotations to {without_secret(url)}, but the backend is not connected there any "
                "more (deleting a backend leaves its webhook)."
            )
            fix = f"{client.url}/projects/{project}/settings/webhooks: delete it  # or run: ovam-labeler connect again"
            rows.append(Row(f"project {project} webhook", False, sentence, fix))
    return rows


def _backend_rows(
    client: LabelStudioClient,
    project: Mapping[str, Any],
    backend: Mapping[str, Any],
    hooks: Sequence[Mapping[str, Any]],
    settings: Settings,
) -> list[Row]:
    name, url = f"project {project['id']}", str(backend.get("url", "")).rstrip("/")
    where = f"Project '{project.get('title', '')}'"
    rows = []
    if backend.get("state") == "CO":
        rows.append(Row(f"{name} backend", True, f"{where} is connected to {without_secret(url)}."))
    else:
        said = str(backend.get("error_message") or backend.get("readable_state") or "no reason given")[:300]
        fix = "Start it with: ovam-labeler serve"
        rows.append(Row(f"{name} backend", False, f"{where} cannot reach {without_secret(url)}: {said}.", fix))
    rows += answer_rows(name, url, project, settings)
    mine = [h for h in hooks if str(h.get("url", "")).rstrip("/") == f"{url}/webhook" and h.get("is_active")]
    if not mine:
        rows.append(
            Row(
                f"{name} webhook",
                False,
                f"{where} has no active webhook to {without_secret(url)}/webhook: corrections never arrive.",
                f"Start Label Studio with {ALLOW_PRIVATE} and connect the model again.",
            )
        )
    else:
        rows.append(_secret_row(name, where, mine[0], settings))
        rows += webhook_rows(client, name, where, mine[0])
    if len(mine) > 1:
        rows.append(
            Row(
                f"{name} webhooks",
                False,
                f"{where} has {len(mine)} webhooks to {without_secret(url)}, so every event comes {len(mine)} times (each is "
                "counted once).",
                "Project > Settings > Webhooks: delete all but one  # or run: ovam-labeler connect again",
            )
        )
    rows += project_rows(client, name, where, project, backend, settings)
    version = backend.get("model_version")
    if project.get("sampling") == "Uncertainty sampling" and backend.get("title") != version:
        rows.append(
            Row(
                f"{name} ordering",
                False,
                f"{where} samples by uncertainty, which works only while the backend's title is the model version, {version}.",
                f"curl -X PATCH {client.url}/api/ml/{backend['id']} -H 'Authorization: Token ...' "
                f"-H 'Content-Type: application/json' -d '{{\"title\": \"{version}\"}}'",
            )
        )
    return rows


def _secret_row(name: str, where: str, hook: Mapping[str, Any], settings: Settings) -> Row:
    secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else ""
    if not secret:
        return Row(f"{name} webhook", True, f"{where} sends its corrections (no secret: open to this machine only).")
    headers = {str(k).lower(): v for k, v in (hook.get("headers") or {}).items()}
    url = urlsplit(str(hook.get("url", "")))
    if headers.get(SECRET_HEADER.lower()) == secret or url.password == secret:
        return Row(f"{name} webhook", True, f"{where} sends its corrections with the secret.")
    return Row(
        f"{name} webhook",
        False,
        f"{where} has a webhook without OVAM_WEBHOOK_SECRET, so its corrections are refused, silently.",
        f"Project > Settings > Webhooks: add the header {SECRET_HEADER} with the value of OVAM_WEBHOOK_SECRET.",
    )


def _projects(client: LabelStudioClient) -> list[Mapping[str, Any]]:
    answer = client.call("GET", f"/api/projects?page_size={_PROJECTS}", timeout=60)
    return list(answer["results"] if isinstance(answer, dict) else answer)
