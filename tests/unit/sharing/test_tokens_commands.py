"""``tokens list|show|history|compare|promote|rollback|archive|tag|prune|gc`` over a store, no model involved."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from token_registry import Registry

from ovam_labeler.jobs.kinds import REVIEW
from ovam_labeler.tools.label_studio.push_queue import PUSH
from token_store.entities import Scope, ServedPrediction

PROJECT = Scope("default", "7")
IN_PROJECT = ("--connection", "default", "--project", "7")


@pytest.fixture
def filled(registry: Registry) -> Registry:
    registry.add("cat")
    registry.add("cat", push=0.1, state="proven", parent_version=1, metrics={"train_iou": 0.9})
    registry.add("cat", push=0.2, aliases=("candidate",), parent_version=2)
    registry.add("dog", aliases=(), state="rejected")
    registry.add("car", PROJECT)
    return registry


def names(rows: list[dict[str, object]]) -> list[object]:
    return [row["class_name"] for row in rows]


def test_list_filters(filled: Registry) -> None:
    filled.run("tag", "cat", "animal=yes", "reviewed")
    assert names(filled.json("list")) == ["cat", "dog", "car"]
    assert names(filled.json("list", "--global")) == ["cat", "dog"]
    assert names(filled.json("list", *IN_PROJECT)) == ["car"]
    assert names(filled.json("list", "--name", "CA")) == ["cat", "car"]
    assert names(filled.json("list", "--state", "proven")) == ["cat"]
    assert names(filled.json("list", "--no-active")) == ["dog"]
    assert names(filled.json("list", "--no-active", "--state", "rejected")) == ["dog"]
    assert names(filled.json("list", "--alias", "candidate")) == ["cat"]
    assert (
        names(filled.json("list", "--tag", "animal=yes")) == names(filled.json("list", "--tag", "reviewed")) == ["cat"]
    )
    assert filled.json("list", "--tag", "animal=no") == []
    assert names(filled.json("list", "--limit", "2")) == ["cat", "dog"]
    (cat,) = filled.json("list", "--name", "cat")
    assert cat["aliases"] == {"active": 2, "candidate": 3} and cat["versions"] == 3
    assert cat["active"]["state"] == "proven" and cat["newest"]["version"] == 3
    text, note = filled.run("list", "--limit", "2")
    assert "cat" in text and "proven" in text and "1 more" in note
    assert "No token matches" in filled.run("list", "--name", "zebra")[0]
    assert "ovam-labeler learn" in Registry(filled.folder / "other", filled.attributor).run("list")[0]


def test_a_table_bigger_than_a_page_comes_whole_as_json(registry: Registry) -> None:
    from token_store.entities import NewTokenVersion

    store = registry.store()
    new = NewTokenVersion({"space": "a" * 64}, registry.embedding("cat"), {}, {})
    for k in range(130):
        store.add_version(Scope.everywhere(), f"class {k:03d}", new)
    store.close()
    assert len(registry.json("list")) == 130
    assert "30 more" in registry.run("list")[1]


def test_show_names_versions_and_aliases(filled: Registry) -> None:
    assert [v["version"] for v in filled.json("show", "cat")] == [1, 2, 3]
    assert [v["version"] for v in filled.json("show", "cat", "--version", "active")] == [2]
    assert filled.json("show", "cat", "--version", "v3")[0]["aliases"] == ["candidate"]
    assert "made while version 2 was active" in filled.run("show", "cat")[0]
    assert "no token 'zebra'" in filled.run("show", "zebra", code=2)[1]
    assert "no version 9" in filled.run("show", "cat", "--version", "9", code=2)[1]


def test_promote_and_rollback(filled: Registry) -> None:
    changed = filled.json("promote", "cat", "--why", "looked at it")
    assert (changed["before"], changed["after"]) == (2, 3)
    assert filled.json("list", "--name", "cat")[0]["aliases"] == {"active": 3}
    back = filled.json("rollback", "cat")
    assert (back["before"], back["after"]) == (3, 2)
    assert "version 1" in filled.run("rollback", "cat")[0]
    assert "its word" in filled.run("rollback", "cat")[0]
    assert "nothing to roll" in filled.run("rollback", "cat", code=2)[1]
    story = filled.json("history", "cat")
    assert story[0]["at"] > story[-1]["at"]
    assert any(e["why"] == "looked at it" and e["who"].startswith("cli") for e in story)
    assert "looked at it" in filled.run("history", "cat")[0]
    assert "no token" in filled.run("history", "zebra", code=2)[1]
    assert "zebra" in filled.run("promote", "zebra", code=2)[1]


def serve(registry: Registry, class_name: str, version: int | str, count: int = 3, scope: Scope = PROJECT) -> None:
    """As if tasks 0 to ``count`` had been answered with that version of a global token."""
    store = registry.store()
    used = store.get_version(Scope.everywhere(), class_name, version)
    now = datetime.now(UTC)
    store.put_served(
        [
            ServedPrediction(scope, str(k), "v", {}, {class_name: used.number}, now, {class_name: used.id})
            for k in range(count)
        ]
    )
    store.close()


def pushes(registry: Registry) -> list[object]:
    store = registry.store()
    jobs = store.list_jobs(states=("queued",), kinds=(PUSH,))
    store.close()
    return [job.payload for job in jobs]


def test_tasks_answered_with_the_old_version_are_counted(filled: Registry) -> None:
    serve(filled, "cat", "active")
    assert filled.json("promote", "cat")["touched_tasks"] == 3
    assert filled.json("rollback", "cat")["touched_tasks"] == 0
    text, _ = filled.run("promote", "cat", "3")
    assert "answered with what was in use before: 3." in text and "when they are opened" in text
    assert pushes(filled) == [], "no labeling tool is known that could be handed anything"


@pytest.mark.parametrize("command", [("promote", "cat"), ("rollback", "cat"), ("archive", "cat", "active", "--yes")])
def test_a_move_has_the_server_predict_open_tasks_again(filled: Registry, command: tuple[str, ...]) -> None:
    filled.environment["OVAM_LABEL_STUDIO_URL"] = "http://studio"
    serve(filled, "cat", "active")
    serve(filled, "cat", "active", 1, Scope("unknown", "1"))
    found = filled.json(*command)
    assert (found["touched_tasks"], found["predicted_again"]) == (4, ["default/7"])
    assert pushes(filled) == [{"connection": "default", "project": "7"}]
    # A second move before the push: the push that waits does for both.
    filled.run("promote", "cat", "1")
    serve(filled, "cat", 1)
    text, _ = filled.run("promote", "cat", "3")
    assert "predicts the next open tasks of default/7 again" in text and len(pushes(filled)) == 1


def test_a_move_that_changes_no_mask_queues_nothing(filled: Registry) -> None:
    filled.environment["OVAM_LABEL_STUDIO_URL"] = "http://studio"
    serve(filled, "cat", "active")
    assert filled.json("promote", "cat", "2")["predicted_again"] == []
    assert filled.json("archive", "cat", "1")["predicted_again"] == []
    store = filled.store()
    store.put_project_options(PROJECT, {"push": 0})
    store.close()
    assert filled.json("promote", "cat")["predicted_again"] == [] and pushes(filled) == []


def test_compare(filled: Registry) -> None:
    found = filled.json("compare", "cat")
    assert [v["version"] for v in found["versions"]] == [2, 3]
    assert found["differences"]["train_iou"] == [0.9, 0.75] and 0.5 < found["cosine"] <= 1
    assert "Cosine" in filled.run("compare", "cat", 1, 2)[0]
    assert "no active version" in filled.run("compare", "dog", code=2)[1]


def test_the_word_can_be_used_again(filled: Registry) -> None:
    changed = filled.json("promote", "cat", "--word", "--why", "photographs now")
    assert (changed["before"], changed["after"]) == (2, None)
    assert "its word is active already" in filled.run("promote", "cat", "--word")[0]
    assert filled.json("rollback", "cat")["after"] == 2
    assert "leave out the version" in filled.run("promote", "cat", "3", "--word", code=2)[1]


def test_a_missing_candidate_names_what_there_is(filled: Registry) -> None:
    assert "no candidate: name a version to promote (1)" in filled.run("promote", "dog", code=2)[1]


@pytest.mark.parametrize("command", ["show", "promote", "rollback", "history", "compare", "tag"])
def test_a_token_of_another_scope_is_pointed_at(filled: Registry, command: str) -> None:
    _, error = filled.run(command, "car", code=2)
    assert "in scope global, but in default/7: add --connection default --project 7" in error
    assert "in default/7" in filled.run("export", "car", "--out", filled.folder / "x", code=2)[1]
    _, error = filled.run(command, "cat", *IN_PROJECT, code=2)
    assert "leave out --connection and --project" in error


def test_learning_of_a_class_is_paused_and_goes_on(filled: Registry) -> None:
    assert filled.json("pause", "car", *IN_PROJECT, "--why", "not sure")["paused_classes"] == ["car"]
    assert "goes on" in filled.run("resume", "car", *IN_PROJECT)[0]
    store = filled.store()
    assert [job.payload["label"] for job in store.list_jobs(kinds=(REVIEW,))] == ["car"]
    assert [e["why"] for e in store.audit(scope=PROJECT)][:2] == ["", "not sure"]
    store.close()


def test_evidence_is_told_beside_the_word(registry: Registry) -> None:
    metrics = {"held_out": {"token": [0.5, 0.7], "word": [0.2, 0.4]}, "libraries": {"torch": "2.13"}, "reason": "Used."}
    registry.add("cat", metrics=metrics)
    registry.add("cat", push=0.1, aliases=())
    assert "0.60 (word 0.30)" in registry.run("list")[0]
    text, _ = registry.run("show", "cat", "--version", "1")
    assert "IoU on corrections held back: 0.60 (word 0.30)" in text and "torch 2.13" in text and "  Used." in text
    found = registry.json("compare", "cat")
    assert [v["version"] for v in found["versions"]] == [1, 2], "never with itself"
    assert found["differences"]["held back"] == ["0.60 (word 0.30)", "-"]


def test_archiving_what_is_in_use_asks_first(filled: Registry) -> None:
    stdout, sentence = filled.run("archive", "cat", "active", code=3)
    assert "active" in sentence and "--yes" in sentence and not stdout
    assert filled.json("show", "cat", "--version", "2")[0]["state"] == "proven"
    done = filled.json("archive", "cat", "active", "--yes")
    assert done["archived"] == 2 and done["aliases"] == {"active": {"before": 2, "after": None}}
    assert filled.json("archive", "cat", 1)["aliases"] == {}


def test_tags(filled: Registry) -> None:
    assert filled.json("tag", "cat", "a=1", "b=2")["tags"] == {"a": "1", "b": "2"}
    assert filled.json("tag", "cat", "--remove", "a")["tags"] == {"b": "2"}
    assert filled.json("tag", "cat", "seen", "--version", "candidate")["tags"] == {"seen": ""}
    assert filled.json("tag", "cat")["tags"] == {"b": "2"}
    assert "KEY=VALUE" in filled.run("tag", "cat", "=x", code=2)[1]
    assert "no token" in filled.run("tag", "zebra", "a=1", code=2)[1]


def test_prune_and_gc_destroy_only_when_told(filled: Registry) -> None:
    for k in range(4):
        filled.add("cat", push=0.3 + k / 10, aliases=())
    would = filled.json("prune", "--keep", 2, "--dry-run")
    assert would["dry_run"] and len(would["archived"]) >= 2
    assert "--yes" in filled.run("prune", "--keep", 2, code=3)[1]
    assert [v["state"] for v in filled.json("show", "cat")].count("archived") == 0
    done = filled.json("prune", "--keep", 2, "--yes")
    assert done["archived"] == would["archived"]
    assert "Nothing to archive" in filled.run("prune", "--keep", 2)[0]

    gone = filled.json("gc", "--older-than", 0, "--dry-run")["deleted"]
    assert [g["version"] for g in gone] == [a["version"] for a in done["archived"]]
    assert "for good" in filled.run("gc", "--older-than", 0, code=3)[1]
    assert len(filled.json("show", "cat")) == 7
    filled.run("gc", "--older-than", 0, "--yes")
    assert len(filled.json("show", "cat")) == 7 - len(gone)
    assert "0 versions" in filled.run("gc")[0]


def test_errors_are_sentences_that_name_what_is_allowed(filled: Registry) -> None:
    assert "proven" in filled.run("list", "--state", "good", code=2)[1]
    assert "updated" in filled.run("list", "--order", "size", code=2)[1]
    assert "go together" in filled.run("list", "--project", "7", code=2)[1]


def test_a_damaged_version_is_told_and_the_rest_still_listed(filled: Registry, tmp_path: Path) -> None:
    with sqlite3.connect(filled.folder / "ovam.sqlite3") as database:
        database.execute("UPDATE token_versions SET embedding = zeroblob(100) WHERE number = 3")
    assert names(filled.json("list")) == ["cat", "dog", "car"]
    assert "sha256" in filled.run("show", "cat", "--version", "3", code=2)[1]


def test_looking_into_the_registry_loads_no_torch(filled: Registry) -> None:
    """Torch takes seconds to import; a look-up must not wait for it."""
    import os
    import subprocess
    import sys

    code = (
        "import sys; from ovam_labeler.cli.main import app\n"
        "for words in (['list'], ['show', 'cat'], ['history', 'cat'], ['compare', 'cat'], ['export', '--out', sys.argv[1]]):\n"
        "    app(['tokens', *words, '--json'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'diffusers' not in sys.modules\n"
    )
    environment = {**os.environ, "OVAM_DATA_DIR": str(filled.folder)}
    arguments = [sys.executable, "-c", code, str(filled.folder / "x.safetensors")]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
