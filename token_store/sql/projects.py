"""Projects: their options, and classes whose learning is paused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, union

from token_store.entities import GLOBAL_CONNECTION, Project, Scope
from token_store.sql import values
from token_store.sql.jobs import new_job
from token_store.sql.session import SqlTransactions
from token_store.tables import CorrectionRow, PausedClassRow, ProjectRow, TokenRow


class SqlProjects(SqlTransactions):
    def list_projects(self) -> list[Project]:
        """See :meth:`token_store.registry_contract.Registry.list_projects`."""
        places = union(*(select(row.connection, row.project) for row in (ProjectRow, TokenRow, CorrectionRow)))
        with self._read() as session:
            known = {(row.connection, row.project): row for row in session.scalars(select(ProjectRow))}
            found = sorted((c, p) for c, p in session.execute(places) if c != GLOBAL_CONNECTION)
        rows = [(Scope(*place), known.get(place)) for place in found]
        return [
            Project(s, {} if row is None else row.options, None if row is None else row.updated_at) for s, row in rows
        ]

    def get_project_options(self, scope: Scope) -> dict[str, Any]:
        """Options last seen or set for a project ({} if none)."""
        with self._read() as session:
            row = session.get(ProjectRow, (scope.connection, scope.project))
            return {} if row is None else row.options

    def put_project_options(self, scope: Scope, options: Mapping[str, Any]) -> None:
        """Replace the project's options."""
        values.scope(scope)
        plain = values.mapping("options", options)
        with self._write() as session:
            self._queue_up(session, "project", scope.connection, scope.project)
            session.merge(
                ProjectRow(connection=scope.connection, project=scope.project, options=plain, updated_at=values.now())
            )

    def change_project_options(
        self, scope: Scope, changes: Mapping[str, Any], *, who: str, why: str = ""
    ) -> dict[str, Any]:
        """See :meth:`token_store.registry_contract.Registry.change_project_options`."""
        values.scope(scope)
        values.text("who", who)
        values.text("why", why)
        plain = values.mapping("options", changes)
        with self._write() as session:
            self._queue_up(session, "project", scope.connection, scope.project)
            row = session.get(ProjectRow, (scope.connection, scope.project))
            old = dict(row.options) if row is not None else {}
            new = {key: value for key, value in {**old, **plain}.items() if value is not None}
            if row is not None and new == old:
                return new
            session.merge(
                ProjectRow(connection=scope.connection, project=scope.project, options=new, updated_at=values.now())
            )
            if new == old:  # a project seen for the first time: nothing was set
                return new
            details = {
                "connection": scope.connection,
                "project": scope.project,
                "from": {key: old.get(key) for key in plain},
                "to": {key: new.get(key) for key in plain},
            }
            self._record(session, who=who, what="project.options", why=why, details=details)
            return new

    def pause_class(
        self, scope: Scope, class_name: str, paused: bool, *, who: str, why: str = "", job_kind: str | None = None
    ) -> None:
        """See :meth:`token_store.registry_contract.Registry.pause_class`."""
        values.scope(scope)
        values.name("class_name", class_name)
        values.text("who", who)
        values.text("why", why)
        key = (scope.connection, scope.project, class_name)
        with self._write() as session:
            self._queue_up(session, "paused", *key)
            row = session.get(PausedClassRow, key)
            if (row is not None) == paused:
                return
            if row is None:
                session.add(
                    PausedClassRow(connection=key[0], project=key[1], class_name=key[2], paused_at=values.now())
                )
            else:
                session.delete(row)
                if job_kind is not None:
                    session.add(new_job(job_kind, {"connection": key[0], "project": key[1], "label": class_name}))
            details = {"connection": key[0], "project": key[1], "class_name": class_name}
            what = "class.pause" if paused else "class.resume"
            self._record(session, who=who, what=what, why=why, details=details)

    def paused_classes(self, scope: Scope) -> list[str]:
        """See :meth:`token_store.registry_contract.Registry.paused_classes`."""
        query = select(PausedClassRow.class_name).where(
            PausedClassRow.connection == scope.connection, PausedClassRow.project == scope.project
        )
        with self._read() as session:
            return sorted(session.scalars(query))
