"""What a move of ``active`` by a command touches: tasks answered with what was in use before, predicted again by the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ovam_labeler.cli.common import load_settings
from ovam_labeler.cli.tokens_common import say

if TYPE_CHECKING:
    from token_store.contract import TokenStore
    from token_store.entities import AliasChange, Scope

#: Tasks of a class that are counted at most.
MOST_TASKS = 1000


@dataclass(frozen=True, slots=True)
class Touched:
    """Attributes:
    tasks: how many were last answered with what is no longer active, of a class at most :data:`MOST_TASKS`.
    more: whether there may be more.
    projects: whose next open tasks a running server predicts again.
    """

    tasks: int = 0
    more: bool = False
    projects: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {"touched_tasks": self.tasks, "predicted_again": list(self.projects)}

    def tell(self) -> None:
        """Two lines at most; nothing where no task is touched."""
        if not self.tasks:
            return
        say(f"Tasks last answered with what was in use before: {self.tasks}{' or more' if self.more else ''}.")
        if self.projects:
            say(
                f"A running server predicts the next open tasks of {', '.join(self.projects)} again and hands them over; "
                "the labeling tool asks for the others when they are opened."
            )
        else:
            say("The labeling tool asks for them again when they are opened.")


def predict_again(store: TokenStore, moves: Sequence[AliasChange | None]) -> Touched:
    """Find the tasks that moves of ``active`` touch, and queue for the projects they belong to what a token that lands
    queues: a push of their next open tasks.  Where the project's labeling tool is not known here, nothing is queued."""
    from ovam_labeler.tools.label_studio.connections import Connections
    from ovam_labeler.tools.label_studio.push_queue import PushQueue

    settings = load_settings()
    queue = PushQueue(settings, store, Connections(settings))
    tasks, more, scopes = 0, False, set()
    for move in moves:
        if move is None or move.before == move.after:
            continue
        served = store.affected_tasks(move.scope, move.class_name, move.before, limit=MOST_TASKS)
        tasks += len(served)
        more = more or len(served) == MOST_TASKS
        scopes |= {one.scope for one in served}
    return Touched(tasks, more, tuple(str(scope) for scope in sorted(scopes) if queue.later(scope) is not None))


def active_number(store: TokenStore, scope: Scope, class_name: str) -> int | None:
    """Number of the scope's own active version; None where the class has none, or is not known yet."""
    from token_store.contract import NotFoundError

    try:
        return store.get_token(scope, class_name).aliases.get("active")
    except NotFoundError:
        return None
