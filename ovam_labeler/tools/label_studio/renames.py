"""Follows labels that were renamed in a project's config.

Label Studio has no event for it: the config is a text, and a rename looks like one label gone and another come.  The
rule: a label that stands in the same place, with the same attributes, between the same number of labels, is the same
label under another name.  What fits no such pair is left alone, since a wrong guess would teach a class another's masks.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from defusedxml import ElementTree

from token_store.contract import TokenStore
from token_store.entities import Scope

log = logging.getLogger(__name__)

NOTE = "labels"

#: Configs remembered as unchanged, so that an event costs no question to the store.
_REMEMBERED = 1024


class LabelNames:
    """Remembers each project's labels and renames classes where the config renamed a label.  Thread-safe."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._seen: OrderedDict[Scope, tuple[str, dict[str, Any]]] = OrderedDict()

    def follow(self, scope: Scope, project: object) -> list[tuple[str, str]]:
        """Look at a project as an event or the API tells it; returns the (old, new) names that were followed.

        A project older than the one seen last is passed over: events may come late.

        Raises:
            StoreError: the store cannot be written; the same config is looked at again later.
        """
        if not isinstance(project, Mapping):
            return []
        config, at = str(project.get("label_config") or ""), str(project.get("updated_at") or "")
        with self._lock:
            seen, note = self._seen.get(scope, ("", None))
            if seen == config:
                return []
            if note is None:
                note = self._store.get_note(scope, NOTE)
            labels = labels_of(config)
            if labels is None or at < str(note.get("at") or ""):
                return []
            followed = []
            if note.get("labels") != labels:
                before = note.get("labels")
                for old, new in renamed(before, labels) if isinstance(before, list) else []:
                    log.info("Project %s: the label '%s' is now called '%s'.", scope, old, new)
                    self._store.rename_class(scope, old, new, who="label studio", why="renamed in the label config")
                    self._rename_listed(scope, old, new)
                    followed.append((old, new))
                note = {"labels": labels, "at": at, "names": _names(note.get("names"), followed, labels)}
                self._store.put_note(scope, NOTE, note)
            self._seen[scope] = (config, note)
            self._seen.move_to_end(scope)
            while len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
            return followed

    def now(self, scope: Scope, name: str) -> str:
        """What a label of this name is called now; the name itself where it was not renamed."""
        with self._lock:
            _, note = self._seen.get(scope, ("", {}))
        return str((note.get("names") or {}).get(name, name))

    def _rename_listed(self, scope: Scope, old: str, new: str) -> None:
        """In the project's classes to learn, where they are listed on the pages."""
        listed = self._store.get_project_options(scope).get("classes")
        if isinstance(listed, list) and old in listed:
            changed = [new if name == old else name for name in listed]
            why = f"'{old}' was renamed in the label config"
            self._store.change_project_options(scope, {"classes": changed}, who="label studio", why=why)

    def present(self, scope: Scope, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """The event in the project's present names.

        Label Studio leaves the old name in annotations made before a rename, and an event may be older than the config.
        """
        with self._lock:
            config, note = self._seen.get(scope, ("", {}))
        names = note.get("names")
        if not names:
            return event
        project, annotation = event.get("project"), event.get("annotation")
        if not isinstance(project, Mapping) or not isinstance(annotation, Mapping):
            return event
        result = annotation.get("result")
        result = [_in_present_names(region, names) for region in result] if isinstance(result, list) else result
        return {
            **event,
            "project": {**project, "label_config": config},
            "annotation": {**annotation, "result": result},
        }


def _names(known: object, followed: list[tuple[str, str]], labels: list[list[object]]) -> dict[str, str]:
    """Former name -> present name, without those that are a label again."""
    names = {str(old): str(new) for old, new in known.items()} if isinstance(known, Mapping) else {}
    for old, new in followed:
        names = {was: new if now == old else now for was, now in names.items()} | {old: new}
    present = {str(row[1]) for row in labels}
    return {old: new for old, new in names.items() if old not in present and new in present}


def _in_present_names(region: object, names: Mapping[str, str]) -> object:
    value = region.get("value") if isinstance(region, Mapping) else None
    if not isinstance(region, Mapping) or not isinstance(value, Mapping):
        return region
    changed = {
        key: [names.get(text, text) if isinstance(text, str) else text for text in value[key]]
        for key in {str(region.get("type")), "labels"}
        if isinstance(value.get(key), list)
    }
    return {**region, "value": {**value, **changed}}


def labels_of(config: str) -> list[list[object]] | None:
    """``[control, label, attributes]`` of every label in the config's order; None where it is no XML."""
    try:
        root = ElementTree.fromstring(config)
    except (ElementTree.ParseError, ValueError):
        return None
    found: list[list[object]] = []
    for control in root.iter():
        for label in control:
            name = label.get("value")
            if label.tag == "Label" and name:
                others = {k: v for k, v in sorted(label.attrib.items()) if k != "value"}
                found.append([control.get("name") or "", name, others])
    return found


def renamed(before: list[list[object]], after: list[list[object]]) -> list[tuple[str, str]]:
    """(old, new) of labels that keep their place and attributes but not their name."""
    if len(before) != len(after):
        return []
    old_names, new_names = {str(row[1]) for row in before}, {str(row[1]) for row in after}
    pairs = []
    for was, now in zip(before, after, strict=True):
        old, new = str(was[1]), str(now[1])
        if old == new:
            continue
        if was[0] != now[0] or was[2] != now[2] or old in new_names or new in old_names:
            return []  # moved or exchanged as well: no rename that could be told apart from it
        pairs.append((old, new))
    return pairs
