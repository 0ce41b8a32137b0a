"""Contract of the registry: promotion, rollback, archive, verdicts, tags, paging, policy, tidying."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from token_store_samples import OTHER, PROJECT, correction, version

from token_store.contract import ConflictError, InvalidValueError, NotFoundError, StoreError, TokenStore
from token_store.entities import Scope, ServedPrediction, StateChange, TokenFilter, VersionRef


def active(store: TokenStore, name: str = "cat") -> int | None:
    return store.get_token(PROJECT, name).aliases.get("active")


def three(store: TokenStore) -> None:
    for value in (1, 2, 3):
        store.add_version(PROJECT, "cat", version(value), aliases=["active"])


def test_promote_moves_active_and_takes_candidate(store: TokenStore) -> None:
    store.add_version(PROJECT, "cat", version(1), aliases=["active"])
    store.add_version(PROJECT, "cat", version(2, state="rejected"), aliases=["candidate"])
    change = store.promote(PROJECT, "cat", "candidate", who="ann", why="looks better")
    assert (change.alias, change.before, change.after) == ("active", 1, 2)
    token = store.get_token(PROJECT, "cat")
    assert token.aliases == {"active": 2}
    assert token.active is not None and (token.active.number, token.active.state) == (2, "unproven")
    again = store.promote(PROJECT, "cat", 2, who="ann", why="twice")
    assert again.before == again.after == 2
    with pytest.raises(NotFoundError):
        store.promote(PROJECT, "cat", 9, who="ann", why="")
    with pytest.raises(NotFoundError):
        store.promote(OTHER, "cat", 1, who="ann", why="")


def test_what_was_judged_by_must_still_hold(store: TokenStore) -> None:
    three(store)
    for act in (
        lambda: store.promote(PROJECT, "cat", 1, who="gate", why="", expect={"active": 2}),
        lambda: store.decide(PROJECT, "cat", aliases={"active": None}, who="gate", why="", expect={"active": None}),
        lambda: store.add_version(PROJECT, "cat", version(4), aliases=["active"], expect={"active": 1}),
    ):
        with pytest.raises(ConflictError, match="points at version 3, not at"):
            act()
    assert len(store.list_versions(PROJECT, "cat")) == 3
    assert store.add_version(PROJECT, "cat", version(4), expect={"active": 3, "candidate": None}).number == 4


def test_rollback_goes_one_further_each_time(store: TokenStore) -> None:
    three(store)
    first = store.rollback(PROJECT, "cat", who="ann", why="worse")
    assert (first.before, first.after) == (3, 2)
    assert store.rollback(PROJECT, "cat", who="ann", why="still").after == 1
    to_word = store.rollback(PROJECT, "cat", who="ann", why="all bad")
    assert (to_word.before, to_word.after) == (1, None)
    assert active(store) is None
    with pytest.raises(StoreError, match="nothing to roll"):
        store.rollback(PROJECT, "cat", who="ann", why="again")
    store.promote(PROJECT, "cat", 3, who="ann", why="no, this one")
    assert store.rollback(PROJECT, "cat", who="ann", why="no").after is None
    assert [e["what"] for e in store.audit(limit=2)] == ["rollback.remove", "alias.set"]


def test_rollback_in_steps_takes_back_demotions_and_passes_over_archived(store: TokenStore) -> None:
    three(store)
    store.decide(PROJECT, "cat", aliases={"active": None}, who="gate", why="the word does better")
    assert store.rollback(PROJECT, "cat", who="ann", why="not so").after == 3
    store.archive(PROJECT, "cat", 2, who="ann", why="old")
    assert store.rollback(PROJECT, "cat", who="ann", why="back").after == 1
    store.add_version(PROJECT, "cat", version(4), aliases=["active"])
    store.add_version(PROJECT, "cat", version(5), aliases=["active"])
    assert store.rollback(PROJECT, "cat", who="ann", why="two", steps=2).after == 1


def test_archive_takes_every_alias(store: TokenStore) -> None:
    three(store)
    store.set_alias(PROJECT, "cat", "best", 3, who="ann", why="")
    changes = store.archive(PROJECT, "cat", 3, who="ann", why="wrong licence")
    assert [(c.alias, c.before, c.after) for c in changes] == [("active", 3, None), ("best", 3, None)]
    assert store.get_version(PROJECT, "cat", 3).state == "archived"
    assert store.find_active(PROJECT, ["cat"]) == {}
    assert store.archive(PROJECT, "cat", 3, who="ann", why="again") == []
    store.promote(PROJECT, "cat", 3, who="ann", why="needed after all")
    assert store.get_version(PROJECT, "cat", "active").state == "unproven"


def test_verdict_with_a_new_version_is_one_step(store: TokenStore) -> None:
    store.add_version(PROJECT, "cat", version(1), aliases=["active"])
    states = [StateChange(1, "rejected", "the word does better", {"held_out_iou": 0.2})]
    made = store.add_version(PROJECT, "cat", version(2), drop_aliases=["active"], states=states, expect={"active": 1})
    assert made.aliases == ()
    old = store.get_version(PROJECT, "cat", 1)
    assert (old.state, old.metrics["held_out_iou"], old.aliases) == ("rejected", 0.2, ())
    with pytest.raises(NotFoundError):
        store.add_version(PROJECT, "cat", version(3), states=[StateChange(7, "rejected", "")])
    assert len(store.list_versions(PROJECT, "cat")) == 2


def test_same_work_gives_one_version_when_asked(store: TokenStore) -> None:
    new = version(1, source_corrections=(4, 2))
    first = store.add_version(PROJECT, "cat", new, once=True, aliases=["active"])
    again = store.add_version(PROJECT, "cat", version(9, source_corrections=(2, 4)), once=True, aliases=["other"])
    assert (again.id, again.aliases) == (first.id, ("active",))
    assert store.add_version(PROJECT, "cat", version(1, source_corrections=(2,)), once=True).number == 2
    elsewhere = version(1, source_corrections=(2, 4), fingerprint={"space": "other"})
    assert store.add_version(PROJECT, "cat", elsewhere, once=True).number == 3
    assert store.add_version(PROJECT, "cat", version(1), once=True).number == 4
    assert store.add_version(PROJECT, "cat", version(1), once=True).number == 5


def test_tags_of_tokens_and_versions(store: TokenStore) -> None:
    three(store)
    store.set_tag(PROJECT, "cat", "team", "vision", who="ann", why="owner")
    store.set_tag(PROJECT, "cat", "team", "optics", who="ann")
    store.set_tag(PROJECT, "cat", "checked", "yes", who="ann", version=2)
    assert store.get_token(PROJECT, "cat").tags == {"team": "optics"}
    assert store.get_version(PROJECT, "cat", 2).tags == {"checked": "yes"}
    assert store.count_tokens(TokenFilter(tags={"team": "optics"})) == 1
    assert store.count_tokens(TokenFilter(tags={"team": None})) == 1
    assert store.count_tokens(TokenFilter(tags={"team": "vision"})) == 0
    store.set_tag(PROJECT, "cat", "team", None, who="ann")
    store.set_tag(PROJECT, "cat", "checked", None, who="ann", version=2)
    store.set_tag(PROJECT, "cat", "checked", None, who="ann", version=2)
    assert store.get_token(PROJECT, "cat").tags == store.get_version(PROJECT, "cat", 2).tags == {}
    assert [e["what"] for e in store.audit(limit=3)] == ["tag.remove", "tag.remove", "tag.set"]
    with pytest.raises(InvalidValueError, match="tag is empty"):
        store.set_tag(PROJECT, "cat", " ", "x", who="ann")


def test_pages_hold_every_token_once_in_order(store: TokenStore) -> None:
    names = [f"class {n:02d}" for n in range(7)]
    for scope in (PROJECT, OTHER):
        for name in reversed(names):
            store.add_version(scope, name, version(), aliases=["active"])
    for order in ("name", "updated"):
        seen, after = [], None
        while True:
            page = store.find_tokens(TokenFilter(order=order), limit=3, after=after)
            seen += [(str(t.scope), t.class_name) for t in page.tokens]
            after = page.after
            if after is None:
                break
        assert len(seen) == len(set(seen)) == 14
        expected = [("default/1", n) for n in names] + [("second/1", n) for n in names]
        if order == "updated":
            expected = [("second/1", n) for n in names] + [("default/1", n) for n in names]
        assert seen == expected
        assert store.find_tokens(TokenFilter(order=order), limit=14).after is None
    store.set_tag(OTHER, "class 03", "seen", "1", who="ann")
    assert store.find_tokens(TokenFilter(order="updated"), limit=1).tokens[0].class_name == "class 03"
    with pytest.raises(InvalidValueError, match="after"):
        store.find_tokens(after="bm8=")
    with pytest.raises(InvalidValueError, match="limit"):
        store.find_tokens(limit=0)
    with pytest.raises(InvalidValueError, match="order"):
        store.find_tokens(TokenFilter(order="size"))


def test_filters(store: TokenStore) -> None:
    store.add_version(PROJECT, "Étoile", version(state="proven"), aliases=["active"])
    store.add_version(PROJECT, "Étoile", version(state="rejected"))
    store.add_version(PROJECT, "moon", version(state="rejected"))
    store.add_version(OTHER, "moon", version(fingerprint={"space": "xyz"}), aliases=["active", "best"])

    def found(**conditions: object) -> list[str]:
        page = store.find_tokens(TokenFilter(**conditions))  # type: ignore[arg-type]
        assert store.count_tokens(TokenFilter(**conditions)) == len(page.tokens)  # type: ignore[arg-type]
        return [f"{t.scope.connection} {t.class_name}" for t in page.tokens]

    assert found(name_contains="étoile") == ["default Étoile"]
    assert found(name_contains="%") == []
    assert found(scope=PROJECT, active=True) == found(state="proven") == ["default Étoile"]
    assert found(active=False) == ["default moon"]
    assert found(active=False, state="rejected") == ["default moon"]
    assert found(state="rejected") == []
    assert found(space="xyz") == found(alias="best") == ["second moon"]
    with pytest.raises(InvalidValueError, match="state"):
        store.find_tokens(TokenFilter(state="great"))
    star = store.get_token(PROJECT, "Étoile")
    assert star.active is not None and star.newest is not None
    assert (star.versions, star.active.number, star.newest.number, star.newest.state) == (2, 1, 2, "rejected")
    with pytest.raises(NotFoundError):
        store.get_token(PROJECT, "sun")


def test_versions_newest_first_in_pages(store: TokenStore) -> None:
    for n in range(5):
        store.add_version(PROJECT, "cat", version(n, state="rejected" if n % 2 else "proven"))
    assert [v.number for v in store.newest_versions(PROJECT, "cat", limit=2)] == [5, 4]
    assert [v.number for v in store.newest_versions(PROJECT, "cat", limit=2, before=4)] == [3, 2]
    assert [v.number for v in store.newest_versions(PROJECT, "cat", states=["rejected"])] == [4, 2]
    store.add_version(OTHER, "dog", version(), aliases=["active"])
    store.set_alias(PROJECT, "cat", "active", 2, who="a", why="")
    assert [(v.class_name, v.number) for v in store.list_aliased()] == [("cat", 2), ("dog", 1)]
    assert [v.class_name for v in store.list_aliased("active", OTHER)] == ["dog"]


def test_audit_by_class_and_page(store: TokenStore) -> None:
    three(store)
    store.add_version(OTHER, "cat", version(), aliases=["active"])
    store.add_correction(correction())
    store.retract_corrections(PROJECT, ["7"], note="gone")
    of_cat = store.audit(scope=PROJECT, class_name="cat")
    assert [e["details"]["to"] for e in of_cat] == [3, 2, 1]
    assert [e["details"]["to"] for e in store.audit(scope=PROJECT, class_name="cat", before=of_cat[0]["id"])] == [2, 1]
    assert [e["what"] for e in store.audit(1, scope=PROJECT)] == ["correction.retracted"]


def test_tasks_that_a_version_touched(store: TokenStore) -> None:
    first = store.add_version(PROJECT, "cat", version(1), aliases=["active"])
    second = store.add_version(PROJECT, "cat", version(2))
    everywhere = store.add_version(Scope.everywhere(), "cat", version(3), aliases=["active"])
    start = datetime(2026, 11, 24, tzinfo=UTC)

    def serve(task: str, minute: int, version_id: int | None, scope: Scope = PROJECT) -> None:
        at = start + timedelta(minutes=minute)
        one = ServedPrediction(scope, task, f"m{version_id}", {}, {}, at, {"cat": version_id, "dog": None})
        store.put_served([one])

    serve("1", 0, first.id)
    serve("2", 1, first.id)
    serve("3", 2, None)
    serve("2", 3, second.id)
    serve("9", 4, everywhere.id, OTHER)
    serve("1", 5, first.id)
    assert [s.task_id for s in store.affected_tasks(PROJECT, "cat", 1)] == ["1"]
    assert [s.task_id for s in store.affected_tasks(PROJECT, "cat", 2)] == ["2"]
    assert [s.task_id for s in store.affected_tasks(PROJECT, "cat", None)] == ["3"]
    assert [s.task_id for s in store.affected_tasks(PROJECT, "dog", None)] == ["1", "2", "3"]
    assert [(s.scope, s.task_id) for s in store.affected_tasks(Scope.everywhere(), "cat", 1)] == [(OTHER, "9")]
    assert [s.task_id for s in store.affected_tasks(PROJECT, "dog", None, limit=1)] == ["1"]
    with pytest.raises(NotFoundError):
        store.affected_tasks(PROJECT, "cat", 8)


def test_projects_options_and_pauses(store: TokenStore) -> None:
    store.put_project_options(PROJECT, {"policy": "gate", "words": True})
    assert store.change_project_options(PROJECT, {"policy": "manual", "words": None}, who="ann", why="careful") == {
        "policy": "manual"
    }
    assert store.get_project_options(PROJECT) == {"policy": "manual"}
    entry = store.audit(scope=PROJECT)[0]
    assert (entry["what"], entry["who"], entry["details"]["from"]["policy"]) == ("project.options", "ann", "gate")
    store.change_project_options(PROJECT, {"policy": "manual"}, who="ann")
    assert store.change_project_options(Scope("default", "3"), {}, who="ann") == {}  # known from now on, nothing set
    assert len(store.audit()) == 1
    store.add_version(OTHER, "cat", version())
    store.add_version(Scope.everywhere(), "cat", version())
    assert [(p.scope, p.options) for p in store.list_projects()] == [
        (PROJECT, {"policy": "manual"}),
        (Scope("default", "3"), {}),
        (OTHER, {}),
    ]
    for paused in (True, True):
        store.pause_class(PROJECT, "cat", paused, who="ann", why="noisy")
    assert store.paused_classes(PROJECT) == ["cat"] and store.paused_classes(OTHER) == []
    store.pause_class(PROJECT, "cat", False, who="ann", job_kind="review")
    store.pause_class(PROJECT, "cat", False, who="ann", job_kind="review")
    assert store.paused_classes(PROJECT) == []
    (job,) = store.list_jobs(kinds=["review"])
    assert job.payload == {"connection": "default", "project": "1", "label": "cat"}
    assert [e["what"] for e in store.audit(2)] == ["class.resume", "class.pause"]


def test_prune_keeps_what_is_needed_and_garbage_goes_for_good(store: TokenStore) -> None:
    for n in range(6):
        store.add_version(PROJECT, "cat", version(n), aliases=["active"] if n in (1, 3) else ["kept"] if n == 0 else [])
    store.add_version(OTHER, "cat", version())
    refs = [VersionRef(PROJECT, "cat", 3), VersionRef(PROJECT, "cat", 5)]
    assert store.prune(keep=1, who="ann", dry_run=True) == refs
    assert {v.state for v in store.list_versions(PROJECT, "cat")} == {"unproven"}
    assert store.prune(PROJECT, keep=1, who="ann") == refs
    assert store.prune(PROJECT, keep=1, who="ann") == []
    # 1 has an alias, 2 is where a rollback goes, 4 is active, 6 is the newest.
    assert [v.number for v in store.list_versions(PROJECT, "cat") if v.state != "archived"] == [1, 2, 4, 6]
    assert store.rollback(PROJECT, "cat", who="ann", why="").after == 2
    past = datetime.now(UTC) - timedelta(hours=1)
    assert store.collect_garbage(before=past, who="ann").versions == ()
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert store.collect_garbage(before=soon, who="ann", dry_run=True).versions == tuple(refs)
    assert store.collect_garbage(before=soon, who="ann").versions == tuple(refs)
    assert [v.number for v in store.list_versions(PROJECT, "cat")] == [1, 2, 4, 6]
    assert store.add_version(PROJECT, "cat", version()).number == 7
    assert store.check() == []


def test_number_of_a_deleted_token_is_not_given_again(store: TokenStore) -> None:
    store.add_version(PROJECT, "cat", version())
    store.archive(PROJECT, "cat", 1, who="ann", why="")
    store.collect_garbage(before=datetime.now(UTC) + timedelta(hours=1), who="ann")
    assert store.list_tokens() == [] and store.find_tokens().tokens == () and store.count_tokens() == 0
    assert store.add_version(PROJECT, "cat", version()).number == 2


def test_superseded_served_predictions_are_garbage(store: TokenStore) -> None:
    start = datetime(2026, 11, 24, tzinfo=UTC)
    for n in range(3):
        store.put_served([ServedPrediction(PROJECT, "1", f"m{n}", {}, {}, start + timedelta(minutes=n), {"cat": None})])
    assert store.collect_garbage(before=datetime.now(UTC), who="ann", dry_run=True).served == 2
    assert store.collect_garbage(before=datetime.now(UTC), who="ann").served == 2
    last = store.last_served(PROJECT, "1")
    assert last is not None and last.model_version == "m2"


def test_retraction_asks_for_the_class_to_be_judged_again(store: TokenStore) -> None:
    store.add_correction(correction("1", labels=("cat", "dog")), job_kind=None)
    store.add_correction(correction("2", labels=("cat",)), job_kind=None)
    store.retract_corrections(PROJECT, ["1", "2"], note="gone", job_kind="review")
    jobs = store.list_jobs(kinds=["review"])
    assert sorted(j.payload["label"] for j in jobs) == ["cat", "dog"]
    assert {(j.payload["connection"], j.payload["project"]) for j in jobs} == {("default", "1")}
    store.add_correction(correction("3", labels=("cat", "bird")), job_kind=None)
    later = correction("3", updated="2026-12-01T00:00:00Z", labels=("cat",))
    store.add_correction(later, review_kind="review")
    assert sorted(j.payload.get("label", "") for j in store.list_jobs(kinds=["review"])) == ["bird", "cat", "dog"]
