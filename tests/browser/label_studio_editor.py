"""Label Studio's editor as a person uses it: by mouse, on the picture.  Selectors of 1.23.2."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from server_process import wait_for

from ovam_labeler.evaluation.metrics import iou
from ovam_labeler.truth import dilate

#: The picture's place on the page; the canvas above it may be wider, and small pictures belong to the page's frame.
_PICTURE = """() => [...document.querySelectorAll('img')].filter(i => i.complete && i.naturalWidth)
  .map(i => i.getBoundingClientRect()).filter(r => r.width > 100).map(r => [r.x, r.y, r.width, r.height])[0] ?? null"""

#: Number of the open task; the count beside it is a child of its own.
_TASK = "() => document.querySelector('.lsf-current-task__task-id')?.firstChild?.textContent ?? ''"

#: Room that strokes of the brush and the eraser, as wide as they are at first, need on either side, and how far apart they
#: are set, in pixels of a picture of 320.
BRUSH, ERASER = (3, 5), (2, 3)

#: Seconds in which the editor shows what it was given, on a machine that does much else.
SECONDS = 60

#: Least difference of a colour, of 255, by which a region is told from the bare picture.
_TINT = 12


class Editor:
    """The editor on a page.

    Args:
        base: Label Studio's address.
    """

    def __init__(self, page: Page, base: str) -> None:
        self.page, self._base = page, base

    # -- going somewhere ------------------------------------------------------------------------------------------
    def label_all(self, project: int) -> None:
        """What "Label All Tasks" opens: the label stream."""
        self.page.goto(f"{self._base}/projects/{project}/data?labeling=1")

    def shows_task(self, task: int) -> None:
        """Wait until a task is open, its picture with it."""
        wait_for(lambda: self.page.evaluate(_TASK) == str(task), f"task {task} to be open", SECONDS)
        self._picture()

    def submit(self) -> None:
        self.page.get_by_test_id("bottombar-submit-button").click()

    def update(self) -> None:
        self.page.get_by_test_id("bottombar-update-button").click()

    def previous(self) -> None:
        self.page.get_by_test_id("prev-task").click()

    def undo(self) -> None:
        self.page.get_by_test_id("bottombar-undo-button").click()

    def redo(self) -> None:
        self.page.get_by_test_id("bottombar-redo-button").click()

    # -- regions --------------------------------------------------------------------------------------------------
    def regions(self) -> Locator:
        """The list of regions; an item's text is its label."""
        return self.page.locator(".lsf-outliner-item__title")

    def select(self, label: str) -> None:
        """Click the first region of a label in the list; strokes then go to it."""
        self.regions().filter(has_text=label).first.click()
        expect(self.page.get_by_text("View region details")).to_be_hidden()  # what the panel says while none is

    def paint(self, area: np.ndarray) -> int:
        """Paint an area of the picture with the brush, staying inside.  Returns the number of strokes.

        Args:
            area: bool (H, W) of the picture's own size; what is thinner than the brush is left out.
        """
        self.page.get_by_label("brush-tool").first.click()
        return self._strokes(area, area, *BRUSH)

    def erase(self, area: np.ndarray, spare: np.ndarray) -> int:
        """As :meth:`paint`, with the eraser, which may pass over anything but ``spare`` (bool (H, W))."""
        self.page.get_by_label("eraser").click()
        return self._strokes(area, ~spare, *ERASER)

    def click(self, y: float, x: float, shape: tuple[int, ...]) -> None:
        """Click a pixel of the picture."""
        left, top, width, height = self._picture()
        self.page.mouse.click(left + (x + 0.5) * width / shape[1], top + (y + 0.5) * height / shape[0])

    def seen(self, shape: tuple[int, ...]) -> np.ndarray:
        """Where anything is painted over the picture, bool (H, W) of the picture's own size: what a person sees.

        All regions are hidden for a moment; what changes then was painted.
        """
        painted = self.look()
        self.page.get_by_label("Hide all regions").click()
        expect(self.page.get_by_label("Show all regions")).to_be_visible()
        bare = self.look()
        self.page.get_by_label("Show all regions").click()
        expect(self.page.get_by_label("Hide all regions")).to_be_visible()
        return difference(painted, bare, shape)

    def shows(self, mask: np.ndarray, least: float = 0.9) -> None:
        """Wait until what is seen is this mask (bool (H, W)), at an IoU of at least ``least``."""
        wait_for(lambda: iou(self.seen(mask.shape), mask) >= least, "the editor to show the mask", SECONDS)

    # -- the canvas -----------------------------------------------------------------------------------------------
    def _picture(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the picture on the page, once they stand still."""
        places: list[object] = []

        def still() -> bool:
            places.append(self.page.evaluate(_PICTURE))
            return len(places) > 1 and places[-1] is not None and places[-1] == places[-2]

        wait_for(still, "the picture", SECONDS)
        left, top, width, height = places[-1]  # type: ignore[misc]
        return left, top, width, height

    def look(self) -> np.ndarray:
        """The picture with what is painted on it, int (h, w, 3) in pixels of the page, once it stands still."""
        left, top, width, height = self._picture()
        self.page.mouse.move(2, 2)  # away from the picture, where the pointer is drawn
        shots: list[bytes] = []

        def still() -> bool:
            shots.append(self.page.screenshot(clip={"x": left, "y": top, "width": width, "height": height}))
            return len(shots) > 1 and shots[-1] == shots[-2]

        wait_for(still, "the picture to stand still", SECONDS)
        with Image.open(io.BytesIO(shots[-1])) as image:
            return np.asarray(image.convert("RGB")).astype(int)

    def _strokes(self, area: np.ndarray, allowed: np.ndarray, radius: int, apart: int) -> int:
        left, top, width, height = self._picture()
        strokes = _zigzags(area, allowed, radius, apart)
        for points in strokes:
            places = [(left + x * width / area.shape[1], top + (y + 0.5) * height / area.shape[0]) for y, x in points]
            self.page.mouse.move(*places[0])
            self.page.mouse.down()
            for place in places[1:]:
                self.page.mouse.move(*place)
            self.page.mouse.up()
        return len(strokes)


def difference(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Where two looks of :meth:`Editor.look` differ, bool (H, W) of the picture's own size."""
    differs = np.abs(one - other).max(axis=2) > _TINT
    rows = ((np.arange(shape[0]) + 0.5) * differs.shape[0] / shape[0]).astype(int)
    columns = ((np.arange(shape[1]) + 0.5) * differs.shape[1] / shape[1]).astype(int)
    found: np.ndarray = differs[rows[:, None], columns]
    return found


Point = tuple[int, int]


def _zigzags(area: np.ndarray, allowed: np.ndarray, radius: int, apart: int) -> list[list[Point]]:
    """Strokes, each a list of (row, column), that cover an area by horizontal lines.

    A line goes on from the one above it where the way there lies in ``allowed``; else a new stroke begins.
    """
    inside = ~dilate(~area, radius)
    open_strokes: list[list[Point]] = []
    done: list[list[Point]] = []
    for y in range(0, area.shape[0], apart):
        change = np.flatnonzero(np.diff(np.concatenate([[0], inside[y], [0]]).astype(int)))
        now = []
        for start, end in zip(change[::2].tolist(), (change[1::2] - 1).tolist(), strict=True):
            stroke = next(
                (
                    s
                    for s in open_strokes
                    if _clear(s[-1], (y, min((start, end), key=lambda x: abs(x - s[-1][1]))), allowed)
                ),
                None,
            )
            if stroke is None:
                stroke = [(y, start), (y, end)]
            else:
                open_strokes.remove(stroke)
                near_start = abs(start - stroke[-1][1]) <= abs(end - stroke[-1][1])
                stroke += [(y, start), (y, end)] if near_start else [(y, end), (y, start)]
            now.append(stroke)
        done += open_strokes
        open_strokes = now
    return done + open_strokes


def _clear(here: Point, there: Point, allowed: np.ndarray) -> bool:
    """Whether the straight way between two pixels lies in ``allowed``."""
    steps = max(abs(here[0] - there[0]), abs(here[1] - there[1])) + 1
    rows = np.linspace(here[0], there[0], steps).round().astype(int)
    columns = np.linspace(here[1], there[1], steps).round().astype(int)
    return bool(allowed[rows, columns].all())
