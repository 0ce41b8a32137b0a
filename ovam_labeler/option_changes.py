"""Changes a project's options, and has done what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovam_labeler.jobs.kinds import REVIEW
from ovam_labeler.options import project_options
from ovam_labeler.settings import Settings
from token_store.contract import TokenStore
from token_store.entities import Scope, TokenFilter

#: Most corrections, and classes with a token, looked through for classes that are learned from now on.
_CORRECTIONS, _CLASSES = 10_000, 1000


def change_options(
    store: TokenStore, settings: Settings, scope: Scope, changes: Mapping[str, Any], *, who: str, why: str
) -> list[str]:
    """Merge ``changes`` (None removes an option); returns the classes that are learned now and were not before, each with
    a job to learn what was corrected meanwhile (wake the worker after it).

    Raises:
        BadRequestError: an option has a wrong value; nothing was changed.
        StoreError: of the store.
    """
    before = store.get_project_options(scope)
    project_options(settings, {k: v for k, v in {**before, **changes}.items() if v is not None})
    old = project_options(settings, before)
    new = project_options(settings, store.change_project_options(scope, changes, who=who, why=why))
    if old.classes is None or old.classes == new.classes:
        return []
    classes = {label for c in store.list_corrections(scope, limit=_CORRECTIONS) for label in c.labels}
    classes |= {t.class_name for t in store.find_tokens(TokenFilter(scope=scope), limit=_CLASSES).tokens}
    fresh = sorted(name for name in classes if new.wants(name) and not old.wants(name))
    for name in fresh:
        store.add_job(REVIEW, {"connection": scope.connection, "project": scope.project, "label": name})
    return fresh
