"""Any body at /predict, /setup and /webhook: no 5xx of ours, no traceback in an answer, the server lives, memory steady.

500 bodies here; ``OVAM_FUZZ=10000`` (``make soak``) gives more.
"""

from __future__ import annotations

import gc
import json
import os
import resource
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protocol_helpers import DrawnApplication, captured, task

from ovam_labeler.tools.label_studio.app import create_app

BODIES = int(os.environ.get("OVAM_FUZZ", "500"))

#: The last bodies are sent again and again: what memory that takes is the server's alone, hypothesis keeps its own.
AGAIN, ROUNDS, MEGABYTES = 200, 5, 20

_texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["2", "2.1795379479", "ANNOTATION_CREATED", "ANNOTATIONS_DELETED", "TASKS_DELETED", "brushlabels", ""]
    ),
    st.sampled_from(["<View/>", "data:image/png;base64,AAAA", "//evil/x.png", "\0", "é" * 40, "9" * 30, "@"]),
)
_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-1, 3),
    st.floats(allow_nan=False, allow_infinity=False),
    _texts,
)
_anything = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3), max_leaves=8
)
_SEEDS: list[tuple[str, dict[str, Any]]] = [
    ("/predict", {**captured("predict"), "tasks": [task(1), task(2)]}),
    ("/predict", captured("predict_interactive_keypointlabels")),
    ("/predict", captured("predict_interactive_rectanglelabels")),
    ("/setup", captured("setup")),
    *(
        ("/webhook", captured(f"webhook_{name}"))
        for name in (
            "ANNOTATION_CREATED",
            "ANNOTATION_CREATED_from_ui_prediction_changed",
            "ANNOTATION_UPDATED",
            "ANNOTATIONS_DELETED",
            "PROJECT_UPDATED",
            "START_TRAINING",
            "TASKS_DELETED",
        )
    ),
]


def _places(body: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a body."""
    inner = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    return [path, *(place for key, value in inner for place in _places(value, (*path, key)))]


def _changed(body: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    copy = dict(body) if isinstance(body, dict) else list(body)
    copy[place[0]] = _changed(body[place[0]], place[1:], value)
    return copy


@st.composite
def requests_of_anyone(draw: st.DrawFn) -> tuple[str, bytes]:
    """A real body with some of its values exchanged, or anything at all, or no JSON."""
    path, body = draw(st.sampled_from(_SEEDS))
    match draw(st.integers(0, 9)):
        case 0:
            return path, draw(st.binary(max_size=60))
        case 1:
            return path, json.dumps(draw(_anything)).encode()
    for _ in range(draw(st.integers(1, 3))):
        body = _changed(body, draw(st.sampled_from(_places(body))), draw(_anything))
    return path, json.dumps(body).encode()


def _megabytes() -> float:
    """Resident memory of this process."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def test_no_body_breaks_the_server(
    make_application: Callable[..., DrawnApplication], caplog: pytest.LogCaptureFixture
) -> None:
    application = make_application(fetch_timeout=0.2)
    client = create_app(application).test_client()  # type: ignore[arg-type]
    client.application.testing = False
    seen: dict[int, int] = {}
    last: deque[tuple[str, bytes]] = deque(maxlen=AGAIN)

    @settings(
        max_examples=BODIES,
        deadline=60_000,
        derandomize=BODIES == 500,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(requests_of_anyone())
    def ask(request: tuple[str, bytes]) -> None:
        path, body = request
        last.append(request)
        answer = client.post(path, data=body, content_type="application/json")
        seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, f"{answer.status} to {path} {body[:300]!r}"
        assert "Traceback" not in answer.text and "site-packages" not in answer.text
        if answer.status_code >= 400:
            assert answer.json["error"]["message"].strip()
        unforeseen = [record.getMessage() for record in caplog.records if record.exc_info]
        assert not unforeseen, f"{unforeseen} at {path} {body[:300]!r}"
        caplog.clear()

    ask()
    caplog.set_level("CRITICAL")  # the log of this test grows, too
    before = _megabytes()
    for _ in range(ROUNDS):
        for path, body in last:
            client.post(path, data=body, content_type="application/json")
    grown = _megabytes() - before
    assert grown < MEGABYTES, f"memory has grown by {grown:.0f} MB over {ROUNDS * len(last)} bodies"
    assert client.get("/health").status_code == 200
    assert client.post("/predict", json={**captured("predict"), "tasks": [task(1)]}).json["results"][0]["result"]
    print(f"{sum(seen.values())} bodies: {dict(sorted(seen.items()))}, memory +{grown:.0f} MB")
