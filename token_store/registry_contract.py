"""Contract of the registry: what is live, what was, who moved it and why.  A part of :class:`token_store.contract.TokenStore`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from token_store.entities import (
    ALL_TOKENS,
    Added,
    AliasChange,
    Garbage,
    NewTokenVersion,
    Project,
    Scope,
    ServedPrediction,
    StateChange,
    Token,
    TokenFilter,
    TokenPage,
    TokenVersion,
    VersionRef,
)

#: The alias that predictions use, and the alias of a version that waits for a human's word (policy ``manual``).
ACTIVE = "active"
CANDIDATE = "candidate"


@runtime_checkable
class Registry(Protocol):
    """Tokens, versions, aliases, tags, projects' settings, the audit log.

    ``who`` is a person or a part of the program (``"cli:ann"``, ``"gate"``), ``why`` one sentence; both go to the audit log in
    the transaction of what they tell.  ``expect`` maps aliases to the version number (None = no such alias) that the
    caller judged by; where one has moved since, :class:`~token_store.contract.ConflictError` is raised and nothing is
    written, so that the caller can look again.
    """

    # -- reading --------------------------------------------------------------------------------------------------
    def get_token(self, scope: Scope, class_name: str) -> Token:
        """With ``active`` and ``newest`` filled.  Raises NotFoundError."""

    def find_tokens(self, where: TokenFilter = ALL_TOKENS, *, limit: int = 50, after: str | None = None) -> TokenPage:
        """A page of tokens with ``active`` and ``newest`` filled.

        Args:
            limit: 1 to 1000.
            after: of the page before; pages stay right while tokens are added.

        Raises:
            InvalidValueError: an unknown order or state, a limit out of range, an ``after`` that no page gave.
        """

    def count_tokens(self, where: TokenFilter = ALL_TOKENS) -> int:
        """How many tokens all pages hold together."""

    def list_tokens(self, scope: Scope | None = None, name_contains: str = "") -> list[Token]:
        """All at once, by scope, then name; ``name_contains`` ignores case.  Heads are not filled."""

    def list_versions(self, scope: Scope, class_name: str) -> list[TokenVersion]:
        """All at once, oldest first; empty for an unknown class."""

    def newest_versions(
        self,
        scope: Scope,
        class_name: str,
        *,
        states: Sequence[str] = (),
        limit: int = 50,
        before: int | None = None,
    ) -> list[TokenVersion]:
        """Newest first, those with a number under ``before`` and in one of ``states`` (any where empty)."""

    def list_aliased(self, alias: str = ACTIVE, scope: Scope | None = None) -> list[TokenVersion]:
        """The version each token's alias points at, by scope, then name; damaged ones are left out."""

    def audit(
        self,
        limit: int = 100,
        *,
        scope: Scope | None = None,
        class_name: str | None = None,
        before: int | None = None,
    ) -> list[Mapping[str, Any]]:
        """Newest first: ``{"id", "at", "who", "what", "why", "details"}``.

        Args:
            scope, class_name: only entries about that project, that class.
            before: only entries with a smaller id (for paging).
        """

    def affected_tasks(
        self, scope: Scope, class_name: str, version: int | None, *, limit: int = 1000
    ) -> list[ServedPrediction]:
        """Tasks whose newest served prediction asked for the class by this version, newest first.

        Args:
            scope: of the token.  A global one (or None as version, asked of the global scope) touches every project.
            version: a number; None = the word was asked for.
        """

    # -- what is live ---------------------------------------------------------------------------------------------
    def promote(
        self,
        scope: Scope,
        class_name: str,
        version: int | str,
        *,
        who: str,
        why: str,
        expect: Mapping[str, int | None] | None = None,
    ) -> AliasChange:
        """Make a version (number or alias, such as ``"candidate"``) the active one.

        ``candidate`` is taken away where it points at this version.  A rejected or archived version becomes
        ``unproven``: a human, or another verdict, overrules the one before.

        Raises:
            NotFoundError: no such version.
            ConflictError: see the class.
        """

    def rollback(self, scope: Scope, class_name: str, *, who: str, why: str, steps: int = 1) -> AliasChange:
        """Take the last move of ``active`` back: to the version before it, or to the word where there was none.

        A second rollback goes one further, not forth again.  Versions archived or deleted meanwhile are passed over.
        A move made by a rollback is not itself a step.  A version that a gate had rejected becomes ``unproven``, as
        with ``promote``.

        Raises:
            NotFoundError: no such token.
            NothingBeforeError: there is nothing before.
        """

    def archive(self, scope: Scope, class_name: str, version: int, *, who: str, why: str) -> list[AliasChange]:
        """Put a version away: its state becomes ``archived`` and every alias that points at it goes.

        Archiving the active version leaves the class to its word; roll back first to keep a token.  ``promote`` or
        ``set_version_state`` brings it back.
        """

    def set_alias(self, scope: Scope, class_name: str, alias: str, version: int | None, *, who: str, why: str) -> None:
        """Point an alias at a version, or remove it (``None``).

        Raises:
            InvalidValueError: the alias is empty or a number.
            NotFoundError: no such version.
        """

    def decide(
        self,
        scope: Scope,
        class_name: str,
        *,
        aliases: Mapping[str, int | None],
        states: Sequence[StateChange] = (),
        who: str,
        why: str,
        expect: Mapping[str, int | None] | None = None,
    ) -> list[AliasChange]:
        """Several aliases and states at once: the verdict of a gate.  Aliases that stay where they are give no change."""

    def set_version_state(
        self,
        scope: Scope,
        class_name: str,
        version: int,
        state: str,
        *,
        who: str,
        why: str,
        metrics: Mapping[str, Any] | None = None,
    ) -> TokenVersion:
        """Change a version's state; ``metrics`` are merged into the stored ones."""

    def set_tag(
        self,
        scope: Scope,
        class_name: str,
        key: str,
        value: str | None,
        *,
        who: str,
        why: str = "",
        version: int | None = None,
    ) -> None:
        """Set, or remove (``value`` None), a tag of a token, or of one of its versions."""

    # -- adding ---------------------------------------------------------------------------------------------------
    def add_version(
        self,
        scope: Scope,
        class_name: str,
        new: NewTokenVersion,
        *,
        aliases: Sequence[str] = (),
        drop_aliases: Sequence[str] = (),
        states: Sequence[StateChange] = (),
        expect: Mapping[str, int | None] | None = None,
        why: str = "new version",
        once: bool = False,
    ) -> TokenVersion:
        """Store a version under the next number of (scope, class), and act on its verdict, in one transaction.

        Args:
            aliases: these then point at it; ``drop_aliases``: these are removed.
            states: of *other* versions of the class, as the same verdict says.
            once: where a version of the same class, embedding space and source corrections (at least one) is there,
                that one is given back and nothing is written: the same work done twice gives one version.

        Raises:
            InvalidTokenError: embedding not (n >= 2, E) finite float32, unknown state, empty class name.
            ConflictError: see the class.
        """

    def add_bundle(
        self,
        scope: Scope,
        versions: Mapping[str, NewTokenVersion],
        *,
        aliases: Sequence[str] = (),
        vacant_aliases: Sequence[str] = (),
        activate: bool = False,
        who: str,
        why: str,
    ) -> list[Added]:
        """Store a version each of several classes, all of them or, where one is refused, none: one transaction.

        A class that has this very embedding of its embedding space already gets no other version.

        Args:
            versions: by class name.
            aliases: these then point at what is new; ``vacant_aliases``: these too, of classes that lack them.
            activate: make each the active version, also one that was there, as :meth:`promote` does.

        Returns:
            In the order of ``versions``.

        Raises:
            InvalidTokenError: as :meth:`add_version`; names the class.
        """

    # -- policy ---------------------------------------------------------------------------------------------------
    def list_projects(self) -> list[Project]:
        """Every project with options, tokens or corrections, by scope; the global scope is none."""

    def get_project_options(self, scope: Scope) -> dict[str, Any]:
        """Options last seen or set for a project ({} if none)."""

    def put_project_options(self, scope: Scope, options: Mapping[str, Any]) -> None:
        """Replace the project's options."""

    def change_project_options(
        self, scope: Scope, changes: Mapping[str, Any], *, who: str, why: str = ""
    ) -> dict[str, Any]:
        """Merge ``changes`` (None removes an option), recorded in the audit log.  Returns all options.

        A project is known to :meth:`list_projects` from then on, also where nothing was set.
        """

    def pause_class(
        self, scope: Scope, class_name: str, paused: bool, *, who: str, why: str = "", job_kind: str | None = None
    ) -> None:
        """Stop, or go on with, learning of one class; its corrections are kept as evidence meanwhile.

        Going on with it queues, with ``job_kind``, a job ``{"connection", "project", "label"}`` in the same transaction,
        so that what came meanwhile is learned.
        """

    def paused_classes(self, scope: Scope) -> list[str]:
        """Classes of the scope whose learning is paused, by name."""

    # -- tidying --------------------------------------------------------------------------------------------------
    def prune(
        self, scope: Scope | None = None, *, keep: int, who: str, why: str = "", dry_run: bool = False
    ) -> list[VersionRef]:
        """Archive versions that nothing needs: of each class all but the ``keep`` newest, never one with an alias or
        the one that a rollback of ``active`` would bring back.  Nothing is deleted.  Returns what was, or would be, archived.
        """

    def collect_garbage(self, *, before: datetime, who: str, why: str = "", dry_run: bool = False) -> Garbage:
        """Delete for good: versions archived before then, and superseded served predictions of before then.

        Numbers of deleted versions are never given again; the audit log keeps what was.  A token without any version
        left is no longer listed.
        """
