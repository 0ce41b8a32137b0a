"""Entries of the audit log as sentences for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovam_labeler.jobs.kinds import GENERATE
from token_store.entities import Job
from token_store.registry_contract import ACTIVE

#: Job of the labeling tool that predicts tasks and hands them over.
PUSH = "push"


def sentence_of(entry: Mapping[str, Any]) -> str:
    """What an entry of ``TokenStore.audit`` says happened; the entry's own word for it where it is of a kind unknown here."""
    what = str(entry.get("what", ""))
    details = entry.get("details")
    details = details if isinstance(details, Mapping) else {}
    before, after, version = details.get("from"), details.get("to"), details.get("version")
    kind, _, _ = what.partition(".")
    if kind in ("alias", "rollback"):
        return _moved(str(details.get("alias", "")), before, after, back=kind == "rollback")
    if what == "version.state":
        return f"version {version} is {after}, was {before}"
    if what == "version.delete":
        return f"version {version} was deleted for good"
    if what == "project.options":
        return _options(before, after)
    if what == "class.pause":
        return "learning was paused"
    if what == "class.resume":
        return "learning goes on"
    if what == "correction.retracted":
        return f"correction {details.get('correction_id')} was withdrawn"
    if kind == "tag":
        value = details.get("value")
        where = f" of version {version}" if version is not None else ""
        return f"tag {details.get('key')}{where} {f'is {value}' if what == 'tag.set' and value else what.partition('.')[2]}"
    return what


def _moved(alias: str, before: object, after: object, *, back: bool) -> str:
    if alias == ACTIVE:
        return f"{'taken back: ' if back else ''}{_used(after)} is in use, was {_used(before)}"
    if after is None:
        return f"version {before} is {alias} no more"
    return f"version {after} is {alias}" + (f", was version {before}" if before is not None else "")


def _used(number: object) -> str:
    return "the word" if number is None else f"version {number}"


def _options(before: object, after: object) -> str:
    old = before if isinstance(before, Mapping) else {}
    new = after if isinstance(after, Mapping) else {}
    changed = [
        f"{key} {_value(new.get(key))}, was {_value(old.get(key))}" for key in new if new.get(key) != old.get(key)
    ]
    return "settings: " + ("; ".join(changed) or "unchanged")


def _value(value: object) -> str:
    if value is None:
        return "unset"
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def job_about(job: Job) -> str:
    """What a job that is about no class does, from its payload; "" for the others, whose labels say it."""
    if job.kind == GENERATE:
        return f"“{_short(job.payload.get('prompt'))}”, seed {job.payload.get('seed')}"
    if job.kind == PUSH:
        tasks = job.payload.get("tasks")
        return f"{len(tasks)} tasks asked for in a batch" if isinstance(tasks, list) else "the next open tasks"
    return ""


def job_result(job: Job) -> str:
    """What an ended job did, from its result; "" where it says nothing for people."""
    found = job.result
    if job.kind == GENERATE and found.get("task") is not None:
        return f"task {found['task']}" + ("" if found.get("made") else ", which was there already")
    if job.kind == PUSH and isinstance(found.get("postponed"), str):
        return found["postponed"]
    if job.kind == PUSH and "pushed" in found:
        counts = (("pushed", "predicted and pushed"), ("there", "up to date"), ("failed", "failed"))
        parts = [f"{found[key]} {words}" for key, words in counts if found.get(key)]
        parts += [f"{found['pruned']} old predictions deleted"] if found.get("pruned") else []
        parts += [f"{found['left']} left to the next job"] if found.get("left") else []
        return ", ".join(parts) or "no open task"
    if job.kind == "review" and "label" in found:
        return "withdrawn or left as it is" if found.get("version") is None else f"version {found['version']}"
    return ""


def _short(value: object, most: int = 80) -> str:
    text = str(value or "")
    return text if len(text) <= most else text[: most - 1] + "…"
