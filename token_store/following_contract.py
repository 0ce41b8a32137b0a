"""Contract of what is kept to follow a labeling tool: notes on projects, and what became of proposals.  A part of
:class:`token_store.contract.TokenStore`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from token_store.entities import KnownAnnotation, ProposalOutcome, Scope


@runtime_checkable
class Following(Protocol):
    """Notes and outcomes; every method is one transaction."""

    def get_note(self, scope: Scope, name: str) -> dict[str, Any]:
        """What was last put under this name for the project ({} if nothing), such as how far it was reconciled."""

    def put_note(self, scope: Scope, name: str, value: Mapping[str, Any]) -> None:
        """Replace a note."""

    def change_note(self, scope: Scope, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Merge ``changes`` into a note (None removes an entry); returns all of it."""

    def known_annotations(self, scope: Scope, task_ids: Sequence[str] | None = None) -> list[KnownAnnotation]:
        """Every annotation of the project (or of these tasks) that a correction was stored of, by its newest one.

        Without contents, so that many thousands can be compared with what the tool has.
        """

    def put_outcomes(self, outcomes: Sequence[ProposalOutcome]) -> None:
        """Store what became of proposals; one of the same annotation and label is replaced unless it is newer."""

    def drop_outcomes(self, scope: Scope, annotation_ids: Sequence[str]) -> None:
        """Forget the outcomes of deleted annotations."""

    def list_outcomes(self, scope: Scope | None = None, label: str | None = None) -> list[ProposalOutcome]:
        """Oldest first, by the time of the annotation."""

    def rename_class(self, scope: Scope, old: str, new: str, *, who: str, why: str) -> bool:
        """Give a class of a project, with its versions, corrections, masks and outcomes, another name.

        Later corrections and what was learned then go on under the new name.  Recorded in the audit log.  False, and
        nothing is written, where the scope already has a token or corrections of the new name, or none of the old.
        """
