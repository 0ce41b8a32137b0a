"""The page that answers "is it helping?": the report's figures, plotted by version."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pages_helpers import HOSTILE, SCOPE, Visitor

from ovam_labeler.application import OvamApplication
from ovam_labeler.helping import QUIET, report, review
from ovam_labeler.pages.version_plots import seconds_plot, share_plot
from token_store.entities import ProposalOutcome, Scope

AT = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


def outcome(number: int, label: str = "cat", version: int | None = None, iou: float | None = 0.8) -> ProposalOutcome:
    kept = iou == 1.0
    gone = iou == 0.0
    counts = (int(kept), int(not kept and not gone), int(gone), 0)
    at = AT + timedelta(minutes=number)
    return ProposalOutcome(SCOPE, str(number), label, str(number), "ann", "m", version, *counts, iou, 10.0 + number, at)


@pytest.fixture
def judged(application: OvamApplication) -> OvamApplication:
    """A class by its word, then by two versions; another one that hurts."""
    store = application.store
    rows = [outcome(n, version=v, iou=i) for n, (v, i) in enumerate([(None, 0.2), (None, 0.6), (1, 0.8), (2, 1.0)], 1)]
    hurting = [outcome(n, "dog", iou=0.0) for n in range(11, 17)]
    store.put_outcomes([*rows, *hurting])
    assert review(store, SCOPE, hurting, "2026-11-24T10:00:00") == ["dog"]
    return application


def test_the_page_shows_the_reports_figures(visitor: Visitor, judged: OvamApplication) -> None:
    page = visitor.get("/pages/helping", scope="default/2")
    rows = report(judged.store, SCOPE)["classes"]
    assert [(r["label"], r["token_version"]) for r in rows] == [("cat", None), ("cat", 1), ("cat", 2), ("dog", None)]
    assert "word20 %0.400 %50 %11.5" in page.text and "v21100 %1.000 %0 %14.0" in page.text
    assert page.text.index("dog") < page.text.index("cat"), "what has stopped comes first"
    plots = page.all("svg", role="img")
    assert len(plots) == 4 and all(p["aria-labelledby"] and p["aria-describedby"] for p in plots)
    assert "IoU of proposal and submission from 0.40 (word) to 1.00 (v2)" in page.text
    assert page.all("script") == [{"src": "/pages/static/htmx-2.0.11.min.js", "defer": None}], (
        "nothing is drawn by script"
    )


def test_a_class_that_stopped_is_resumed_from_the_page(visitor: Visitor, judged: OvamApplication) -> None:
    moved: list[Scope] = []
    visitor.app.extensions["ovam_moved"] = moved.append
    page = visitor.get("/pages/helping")
    assert "It has stopped proposing. Of its last 6 proposals 6 were deleted whole" in page.text
    assert [b["value"] for b in page.all("button", name="name")] == ["dog"]
    after = visitor.send(page, "/pages/helping", name="dog")
    assert "'dog' proposes again" in after.text and judged.store.get_note(SCOPE, QUIET) == {} and moved == [SCOPE]
    assert after.all("button", name="name") == []
    for name in ("dog", "cat", "never heard of"):
        visitor.send(page, "/pages/helping", scope="default/2", name=name, status=404)
    visitor.send(page, "/pages/helping", scope="default/2", name="", status=400)


def test_a_hostile_class_name_stays_text(visitor: Visitor, application: OvamApplication) -> None:
    application.store.put_outcomes([outcome(1, HOSTILE)])
    page = visitor.get("/pages/helping")
    assert HOSTILE in page.text and page.all("img") == [] and len(page.all("script")) == 1


def test_plots_place_versions_and_leave_gaps_where_nothing_is_known(judged: OvamApplication) -> None:
    rows = [r for r in report(judged.store, SCOPE)["classes"] if r["label"] == "cat"]
    plot = share_plot(rows, 300, 100)
    iou = {one.key: one for one in plot.series}["iou"]
    assert [(x, y) for x, y, _ in iou.dots] == [(50, 60), (150, pytest.approx(20)), (250, 0)]
    assert iou.lines == ("50.0,60.0 150.0,20.0 250.0,0.0",) and iou.dots[1][2].startswith("v1: IoU")
    assert [name for _, name in plot.names] == ["word", "v1", "v2"]
    gap = share_plot([rows[0], {**rows[1], "iou": None}, rows[2]], 300, 100)
    assert {one.key: one for one in gap.series}["iou"].lines == ()
    unknown = [{**row, "iou": None, "lead_time": None} for row in rows]
    assert "iou" not in {one.key for one in share_plot(unknown).series} and seconds_plot(unknown) is None
    many = [{**rows[1], "token_version": n} for n in range(1, 41)]
    assert len(share_plot(many).names) == 10
    slow = seconds_plot(rows, 300, 100)
    assert slow is not None and slow.marks[1] == (0.0, "14 s")
