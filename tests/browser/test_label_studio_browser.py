"""A person with a mouse in the real Label Studio 1.23, in a real Chromium, our server behind it.

The label is a name that is no word ("Bruno", a zebra), and the project says that he is in every picture: so a mask is
proposed everywhere, at first of anything, and only corrections can make it his.  What Label Studio holds and what is seen on
the page are held against exact truth.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_editor import Editor, difference
from label_studio_stage import SECRET, Stage, started
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Route
from server_process import wait_for
from studio_loop import png

from backends.diffusion.tiny.training.composer import compose
from ovam_labeler.demo.annotator import drawn_region
from ovam_labeler.demo.project import label_config, masks_of
from ovam_labeler.demo.scenes import Plan, Scene, make_scenes
from ovam_labeler.demo.sprites import load_pack
from ovam_labeler.evaluation.metrics import iou
from ovam_labeler.truth import dilate
from token_store import open_store
from token_store.contract import TokenStore
from token_store.entities import Correction, Scope

pytestmark = pytest.mark.real_label_studio

NAME = "Bruno"
SECONDS = 120
#: Largest screenshot kept in docs, in bytes.
LARGEST = 120_000


@pytest.fixture(scope="module")
def stage(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """After the browser, so that nothing is started where there is none."""
    with started(tmp_path_factory.mktemp("label-studio")) as made:
        yield made


@pytest.fixture(scope="module")
def signed_in(browser: Browser, stage: Stage) -> Iterator[BrowserContext]:
    """A fresh profile signed in by the form; nothing is asked of another host."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(SECONDS * 1000)

    def local_only(route: Route) -> None:
        route.continue_() if route.request.url.startswith((stage.studio.url, "data:", "blob:")) else route.abort()

    context.route("**/*", local_only)
    page = context.new_page()
    page.goto(f"{stage.studio.url}/user/login/")
    page.fill("input[name=email]", stage.studio.username)
    page.fill("input[name=password]", stage.studio.password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/user/login" not in url)
    page.close()
    yield context
    context.close()


@pytest.fixture
def editor(signed_in: BrowserContext, stage: Stage) -> Iterator[Editor]:
    page = signed_in.new_page()
    yield Editor(page, stage.studio.url)
    page.close()


@pytest.fixture
def store(stage: Stage) -> Iterator[TokenStore]:
    opened = open_store(stage.settings.resolved_database_url(), migrate=False)
    yield opened
    opened.close()


@pytest.fixture
def keep(tmp_path: Path) -> Callable[[Page, str], None]:
    """Takes a screenshot.  Kept in docs with ``OVAM_SCREENSHOTS=docs/images``; see docs/label_studio.md."""
    folder = Path(os.environ.get("OVAM_SCREENSHOTS") or tmp_path)

    def take(page: Page, name: str) -> None:
        target = folder / f"label_studio_{name}.webp"
        page.mouse.move(2, 2)
        with Image.open(io.BytesIO(page.screenshot())) as image:
            image.convert("RGB").resize((1050, 750), Image.Resampling.LANCZOS).save(target, quality=80, method=6)
        assert 5_000 < target.stat().st_size < LARGEST, target

    return take


def zebras() -> list[Scene]:
    """Five pictures with a zebra and other things, none of which the model was trained on."""
    scenes = make_scenes(load_pack("test"), 0, compose, Plan(novel=6, known=0, corrections=1, tests=4))
    corrected, *others = scenes.of("zebra", "correction") + scenes.of("zebra", "test")
    return [others[0], others[1], corrected, *others[2:]]


class Project:
    """A connected project with a task for each scene."""

    def __init__(self, stage: Stage, title: str, scenes: list[Scene], config: str, **backend: Any) -> None:
        self.client, self.scenes = stage.client, scenes
        made = self.client.create_project(title, config, sampling="Sequential sampling")
        self.id = int(made["id"])
        self.scope = Scope("default", str(self.id))
        self.tasks = self.client.import_files(self.id, {f"{s.name}.png": png(s.image) for s in scenes})
        assert self.client.add_backend(self.id, stage.server.url, **backend)["state"] == "CO"
        assert self.client.secure_webhooks(self.id, stage.server.url, SECRET) == 1

    def proposed(self, place: int) -> np.ndarray:
        """The mask of the newest prediction that Label Studio holds of a task, bool (H, W)."""
        scene = self.scenes[place]
        return masks_of(self.client.predictions(self.tasks[place])[-1]).get(NAME, np.zeros_like(scene.truth))

    def quality(self, place: int) -> float:
        return iou(self.proposed(place), self.scenes[place].truth)

    def annotation(self, place: int) -> dict[str, Any]:
        (found,) = self.client.annotations(self.tasks[place])
        return found

    def corrections(self, store: TokenStore, place: int) -> list[Correction]:
        """What a task teaches now."""
        states = ("pending", "learned", "failed")
        return [c for c in store.list_corrections(self.scope, states=states) if c.task_id == str(self.tasks[place])]


def test_paint_erase_submit_and_the_next_mask_is_better_then_update_and_undo(
    stage: Stage, editor: Editor, store: TokenStore, keep: Callable[[Page, str], None]
) -> None:
    scenes = zebras()
    project = Project(stage, "Where is Bruno", scenes, label_config([NAME]), extra_params={"presence": False})
    project.client.retrieve_predictions(project.id, project.tasks)
    before = [project.quality(place) for place in range(len(scenes))]
    truth, proposed = scenes[0].truth, project.proposed(0)
    assert before[0] < 0.5, "the name alone finds him; there is nothing to correct"

    # The first picture: the wrong mask is erased, his is painted.
    editor.label_all(project.id)
    editor.shows_task(project.tasks[0])
    editor.shows(proposed)
    keep(editor.page, "proposal")
    editor.select(NAME)
    assert editor.erase(dilate(proposed, 4) & ~dilate(truth, 2), truth) > 0
    assert editor.paint(truth) > 0
    painted = editor.seen(truth.shape)
    assert iou(painted, truth) > 0.8
    keep(editor.page, "corrected")
    editor.submit()
    editor.shows_task(project.tasks[1])  # fetched in the same second, so it still has the old mask
    (region,) = project.annotation(0)["result"]
    assert region["origin"] == "prediction-changed"
    assert iou(masks_of({"result": [region]})[NAME], painted) > 0.9, "Label Studio got what was seen"
    wait_for(lambda: bool(project.corrections(store, 0)), "the webhook", SECONDS)
    stage.idle()
    assert [c.state for c in project.corrections(store, 0)] == ["learned"]
    first_version = store.find_active(project.scope, [NAME])[NAME].number

    # The next pictures, opened after the token was learned.
    editor.page.reload()
    editor.shows_task(project.tasks[1])
    wait_for(lambda: len(project.client.predictions(project.tasks[1])) == 2, "the new prediction", SECONDS)
    editor.shows(project.proposed(1))
    keep(editor.page, "next")
    project.client.retrieve_predictions(project.id, project.tasks[2:])
    after = [project.quality(place) for place in range(1, len(scenes))]
    assert project.quality(1) > before[1] + 0.2, f"IoU {before[1]:.2f} before, {project.quality(1):.2f} after"
    assert iou(editor.seen(scenes[1].truth.shape), scenes[1].truth) > before[1] + 0.2, "and so it is seen"
    assert np.mean(after) > np.mean(before[1:]) + 0.2, f"mean IoU {before[1:]} before, {after} after"

    # Back to the first picture: a stroke too much, taken back; then one that stays, and Update.
    editor.previous()
    editor.shows_task(project.tasks[0])
    submitted = masks_of(project.annotation(0))[NAME]
    editor.shows(submitted)
    seen = editor.seen(truth.shape)
    was = project.annotation(0)["updated_at"]
    editor.select(NAME)
    corner = np.zeros_like(truth)
    corner[10:22, 10:100] = True
    strokes = editor.paint(corner & ~submitted)
    assert editor.seen(truth.shape)[13:18, 20:90].mean() > 0.9
    for _ in range(strokes):
        editor.undo()
    editor.shows(seen, 0.99)
    bite = np.zeros_like(truth)
    bite[: int(np.nonzero(truth)[0].mean())] = True  # his upper half
    assert editor.erase(submitted & bite, np.zeros_like(truth)) > 0
    editor.update()
    wait_for(lambda: project.annotation(0)["updated_at"] != was, "Update", SECONDS)
    kept = masks_of(project.annotation(0))[NAME]
    assert (kept & bite).sum() < 0.5 * (submitted & bite).sum() and not kept[13:18, 20:90].any()
    wait_for(
        lambda: [c.updated_at for c in project.corrections(store, 0)] == [project.annotation(0)["updated_at"]],
        "its event",
    )
    stage.idle()
    assert store.find_active(project.scope, [NAME])[NAME].number != first_version, "what was updated was learned anew"


def test_a_proposal_submitted_untouched_teaches_nothing(stage: Stage, editor: Editor, store: TokenStore) -> None:
    project = Project(stage, "untouched", zebras()[:2], label_config([NAME]), extra_params={"presence": False})
    editor.label_all(project.id)
    editor.shows_task(project.tasks[0])
    editor.shows(project.proposed(0))
    editor.submit()
    editor.shows_task(project.tasks[1])
    assert [region["origin"] for region in project.annotation(0)["result"]] == ["prediction"]
    wait_for(lambda: bool(store.list_outcomes(project.scope)), "the webhook", SECONDS)
    (outcome,) = store.list_outcomes(project.scope)
    assert outcome.kept and outcome.iou == 1.0 and outcome.lead_time is not None
    assert project.corrections(store, 0) == [] and store.list_tokens(project.scope) == []


def test_a_smart_point_suggests_a_mask_that_can_be_accepted(
    stage: Stage, editor: Editor, store: TokenStore, keep: Callable[[Page, str], None]
) -> None:
    scenes = zebras()[:2]
    smart = (
        f'<KeyPointLabels name="kp" toName="image" smart="true"><Label value="{NAME}" smart="true"/></KeyPointLabels>'
    )
    config = label_config([NAME]).replace("</View>", f"{smart}</View>")
    project = Project(stage, "smart", scenes, config, is_interactive=True)
    # The editor opens empty: a click on a region would select that.
    project.client.call("PATCH", f"/api/projects/{project.id}", json={"show_collab_predictions": False})
    project.client.submit_annotation(project.tasks[1], [drawn_region(NAME, scenes[1].truth)])
    wait_for(lambda: bool(project.corrections(store, 1)), "the webhook", SECONDS)
    stage.idle()

    editor.label_all(project.id)
    editor.shows_task(project.tasks[0])
    editor.page.get_by_text("Auto-Annotation").click()
    # The smart tools are folded up below the others; the label comes after the tool, which lets go of it.
    editor.page.get_by_label("key-point-tool").last.dispatch_event("click")
    editor.page.locator(".lsf-label").filter(has_text=NAME).last.click()
    truth = scenes[0].truth
    rows, columns = np.nonzero(truth)
    middle = int(np.argmin((rows - np.median(rows)) ** 2 + (columns - np.median(columns)) ** 2))
    bare = editor.look()
    editor.click(rows[middle], columns[middle], truth.shape)
    accept = editor.page.get_by_test_id("bottombar-accept-suggestions-button")
    accept.wait_for()
    # A suggestion is not hidden with the regions, so it is told from the picture of before.
    wait_for(
        lambda: iou(difference(editor.look(), bare, truth.shape), truth) > 0.6, "the suggestion to be seen", SECONDS
    )
    keep(editor.page, "smart")
    accept.click()
    editor.submit()
    wait_for(lambda: bool(project.client.annotations(project.tasks[0])), "Submit", SECONDS)
    result = project.annotation(0)["result"]
    (mask,) = [region for region in result if region["type"] == "brushlabels"]
    assert iou(masks_of({"result": [mask]})[NAME], truth) > 0.6
    wait_for(lambda: bool(project.corrections(store, 0)), "the webhook", SECONDS)
    stage.idle()
    assert [c.state for c in project.corrections(store, 0)] == ["learned"]
