"""What ``ovam-labeler doctor`` asks of the configured Label Studio: each measured trap, in one sentence with its mending.

A check changes nothing in Label Studio and never shows a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ovam_labeler.errors import OvamError
from ovam_labeler.settings import Settings
from ovam_labeler.tools.contract import ParsedConfig
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.credentials import TokenRefusedError, is_personal_access_token
from ovam_labeler.tools.label_studio.label_config import parse_label_config
from ovam_labeler.tools.label_studio.security import SECRET_HEADER
from ovam_labeler.tools.label_studio.task_images import task_images

#: Settings that let Label Studio reach private addresses and keep the cloud metadata network banned.
ALLOW_PRIVATE = "USE_DEFAULT_BANNED_SUBNETS=false USER_ADDITIONAL_BANNED_SUBNETS=169.254.0.0/16"

#: An address on this machine where nothing listens: allowed ones fail Label Studio's health check and store nothing.
_PROBE = "http://127.0.0.1:9"

#: Most projects looked at.
_PROJECTS = 100


class Row(NamedTuple):
    """One outcome.  ``ok`` is None where the check does not apply; ``fix`` is what to type or set."""

    name: str
    ok: bool | None
    sentence: str
    fix: str = ""


def run_checks(settings: Settings, client: LabelStudioClient | None = None) -> list[Row]:
    """All checks, in the order a person would mend them; those that hang on a failed one are left out."""
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
        projects = _projects(client)
        rows.append(private_addresses(client, projects))
        rows += backends_and_webhooks(client, projects, settings)
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
    client: LabelStudioClient, projects: Sequence[Mapping[str, Any]], settings: Settings
) -> list[Row]:
    """Each project's backend of ours, its webhook, the webhook's secret, and uncertainty ordering."""
    hooks = client.call("GET", "/api/webhooks/")
    rows: list[Row] = []
    for project in projects:
        for backend in client.backends(int(project["id"])):
            if str(backend.get("model_version") or "").startswith("ovam-"):
                mine = [h for h in hooks if h.get("project") == project["id"]]
                rows += _backend_rows(client, project, backend, mine, settings)
    if not rows:
        rows.append(
            Row(
                "backend",
                False,
                "No project of this Label Studio has this backend connected.",
                "Project > Settings > Model > Connect Model, URL http://127.0.0.1:9090",
            )
        )
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
        rows.append(Row(f"{name} backend", True, f"{where} is connected to {_without_secret(url)}."))
    else:
        said = str(backend.get("error_message") or backend.get("readable_state") or "no reason given")[:300]
        fix = "Start it with: ovam-labeler serve"
        rows.append(Row(f"{name} backend", False, f"{where} cannot reach {_without_secret(url)}: {said}.", fix))
    mine = [h for h in hooks if str(h.get("url", "")).rstrip("/") == f"{url}/webhook" and h.get("is_active")]
    if not mine:
        rows.append(
            Row(
                f"{name} webhook",
                False,
                f"{where} has no active webhook to {_without_secret(url)}/webhook: corrections never arrive.",
                f"Start Label Studio with {ALLOW_PRIVATE} and connect the model again.",
            )
        )
    else:
        rows.append(_secret_row(name, where, mine[0], settings))
    if len(mine) > 1:
        rows.append(
            Row(
                f"{name} webhooks",
                False,
                f"{where} has {len(mine)} webhooks to {_without_secret(url)}, so every event comes {len(mine)} times (each is "
                "counted once).",
                "Project > Settings > Webhooks: delete all but one  # or run: ovam-labeler connect again",
            )
        )
    rows += _project_rows(client, name, where, project, backend)
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


def _project_rows(
    client: LabelStudioClient, name: str, where: str, project: Mapping[str, Any], backend: Mapping[str, Any]
) -> list[Row]:
    """Whether predictions are shown, the label config can be served, and an image of the project can be fetched."""
    rows = []
    settings_page = f"{client.url}/projects/{project['id']}/settings"
    if project.get("show_collab_predictions") is False:
        fix = f"{settings_page}/annotation: switch 'Use predictions to prelabel tasks' on  # or: ovam-labeler connect"
        rows.append(Row(f"{name} predictions", False, f"{where} does not show predictions to annotators.", fix))
    elif "model_version" in project and project.get("model_version") != backend.get("title"):
        sentence = (
            f"{where} shows predictions of '{project.get('model_version')}' and not of the backend, whose title is "
            f"'{backend.get('title')}': the label stream gives none (deleting predictions by version does this)."
        )
        fix = f"{settings_page}/annotation: choose '{backend.get('title')}' as the model  # or: ovam-labeler connect"
        rows.append(Row(f"{name} predictions", False, sentence, fix))
    if isinstance(config := project.get("label_config"), str):
        try:
            parsed = parse_label_config(config)
            rows += [Row(f"{name} labels", None, notice) for notice in parsed.notices]
        except OvamError as error:
            rows.append(Row(f"{name} labels", False, f"{where}: {error}", f"Edit {settings_page}/labeling"))
            return rows
        rows += _image_rows(client, name, where, project, parsed)
    return rows


def _image_rows(
    client: LabelStudioClient, name: str, where: str, project: Mapping[str, Any], config: ParsedConfig
) -> list[Row]:
    """The first task's picture, fetched as predictions fetch it."""
    tasks = client.list_tasks(project["id"], size=1)
    if not tasks:
        return [Row(f"{name} images", None, f"{where} has no task yet whose image could be fetched.")]
    try:
        picture = task_images(tasks[0].get("data") or {}, config)[0]
        data = client.fetch_image(picture.reference)
    except OvamError as error:
        fix = "Mend what the sentence names, then run this again; docs/label_studio.md says what images are fetched."
        return [Row(f"{name} images", False, f"{where}, task {tasks[0].get('id')}: {error}", fix)]
    return [Row(f"{name} images", True, f"The image of task {tasks[0].get('id')} was fetched ({len(data)} bytes).")]


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


def _without_secret(url: str) -> str:
    """A URL without a user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
