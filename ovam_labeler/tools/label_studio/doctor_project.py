"""What the doctor asks of one project: are predictions shown, can the label config, options and images be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovam_labeler.errors import OvamError
from ovam_labeler.image_source import load_image
from ovam_labeler.settings import Settings
from ovam_labeler.tools.contract import ParsedConfig
from ovam_labeler.tools.label_studio.client import LabelStudioClient
from ovam_labeler.tools.label_studio.doctor_row import Row
from ovam_labeler.tools.label_studio.extra_params import read_extra_params
from ovam_labeler.tools.label_studio.label_config import parse_label_config
from ovam_labeler.tools.label_studio.renames import labels_of
from ovam_labeler.tools.label_studio.task_images import task_images


def project_rows(
    client: LabelStudioClient,
    name: str,
    where: str,
    project: Mapping[str, Any],
    backend: Mapping[str, Any],
    settings: Settings,
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
    if project.get("evaluate_predictions_automatically"):
        sentence = (
            f"{where} has predictions fetched whenever its tasks are listed, page by page, while the browser waits."
        )
        fix = (
            f"curl -X PATCH {client.url}/api/projects/{project['id']} -H 'Authorization: Token ...' -H 'Content-Type: "
            "application/json' -d '{\"evaluate_predictions_automatically\": false}'"
        )
        rows.append(Row(f"{name} predictions", False, sentence, fix))
    config = project.get("label_config")
    rows += _option_rows(name, where, project, backend, settings, f"{settings_page}/ml")
    if isinstance(config, str):
        if 'smart="true"' in config and backend.get("is_interactive") is False:
            sentence = f"{where} has smart tools, but its backend is not interactive: their clicks are sent to nobody."
            fix = (
                f"{settings_page}/ml: Edit, switch 'Use for interactive preannotations' on  # or: ovam-labeler connect"
            )
            rows.append(Row(f"{name} smart tools", False, sentence, fix))
        try:
            parsed = parse_label_config(config)
            rows += [Row(f"{name} labels", None, notice) for notice in parsed.notices]
        except OvamError as error:
            rows.append(Row(f"{name} labels", False, f"{where}: {error}", f"Edit {settings_page}/labeling"))
            return rows
        rows += _image_rows(client, name, where, project, parsed, settings)
    return rows


def _option_rows(
    name: str,
    where: str,
    project: Mapping[str, Any],
    backend: Mapping[str, Any],
    settings: Settings,
    page: str,
) -> list[Row]:
    """Extra parameters that are passed over, and listed classes that are no labels: /setup has no way to say so."""
    given, notes = read_extra_params(settings, backend.get("extra_params"))
    rows = [Row(f"{name} options", False, f"{where}: {note}", f"{page}: Edit, Extra params") for note in notes]
    labels = labels_of(str(project.get("label_config") or ""))
    if labels and "classes" in given:
        names = {str(row[1]) for row in labels} | {str(dict(row[2]).get("alias", row[1])) for row in labels}  # type: ignore[call-overload]
        if lost := [one for one in given["classes"] if one not in names]:
            sentence = f"{where}: the extra param 'classes' lists {', '.join(map(repr, lost))}, which the label config does not have."
            rows.append(Row(f"{name} options", False, sentence, f"{page}: Edit, Extra params"))
    return rows


def _image_rows(
    client: LabelStudioClient,
    name: str,
    where: str,
    project: Mapping[str, Any],
    config: ParsedConfig,
    settings: Settings,
) -> list[Row]:
    """The first task's picture, fetched and decoded as predictions do it; and whether it has a prediction of ours."""
    tasks = client.list_tasks(project["id"], size=1)
    if not tasks:
        return [Row(f"{name} images", None, f"{where} has no task yet whose image could be fetched.")]
    number = tasks[0].get("id")
    try:
        picture = task_images(tasks[0].get("data") or {}, config)[0]
        data = client.fetch_image(picture.reference)
        image = load_image(data, max_pixels=settings.max_image_pixels, max_bytes=settings.max_image_bytes)
    except OvamError as error:
        fix = "Mend what the sentence names, then run this again; docs/label_studio.md says what images are fetched."
        return [Row(f"{name} images", False, f"{where}, task {number}: {error}", fix)]
    said = f"The image of task {number} was fetched ({len(data)} bytes, {image.width} x {image.height} upright)."
    rows = [Row(f"{name} images", True, said)]
    if tasks[0].get("total_predictions") == 0:
        sentence = (
            f'{where}, task {number} has no prediction yet; "Retrieved N predictions" is no proof of one, since Label Studio '
            "says so also when nothing answers."
        )
        rows.append(Row(f"{name} predictions", None, sentence))
    return rows
