"""Run as a program: leaves of a /predict body what is read of it.  Body in, body out, by standard input and output.

Label Studio sends every old prediction along, in full: 37 MB for 1,000 tasks with two masks each.  Python reads JSON without
letting any other thread run, half a second for that, in which /health would not be answered.
"""

from __future__ import annotations

import json
import sys
from typing import Any

#: Fields of a task that are read.
KEPT = ("id", "data")


def slim(body: Any) -> Any:
    """The body with tasks that hold :data:`KEPT` alone; whatever is no such body comes back as it is."""
    tasks = body.get("tasks") if isinstance(body, dict) else None
    if not isinstance(tasks, list):
        return body
    kept = [{key: task[key] for key in KEPT if key in task} if isinstance(task, dict) else task for task in tasks]
    return {**body, "tasks": kept}


def main() -> None:
    json.dump(slim(json.load(sys.stdin.buffer)), sys.stdout)


if __name__ == "__main__":
    main()
