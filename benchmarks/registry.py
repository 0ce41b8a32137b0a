"""How the registry grows: look-ups and list pages with 100,000 versions against 1,000, on a PostgreSQL of its own.

``python -m benchmarks.registry`` starts a server (tests/postgres_server.py), fills two databases (10,000 tokens and 100 tokens of
10 versions each) and prints the ratios of the medians, taken alternately in one run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import text

from token_store import open_store, tensor_codec
from token_store.contract import TokenStore
from token_store.engine import locate, make_engine
from token_store.entities import Scope, TokenFilter

sys.path.append(str(Path(__file__).parents[1] / "tests"))

#: Tokens in the small and the large store, versions of each, and tokens of a project.
SMALL, LARGE, VERSIONS, PROJECT = 100, 10_000, 10, 100
REPEATS = 40

_TOKENS = """
INSERT INTO tokens (id, connection, project, class_name, last_number, created_at, updated_at)
SELECT n, 'default', ((n - 1) / :project)::text, 'class ' || lpad(n::text, 6, '0'), :versions, now(), now() + n * interval '1 ms'
FROM generate_series(1, :tokens) n
"""
_VERSIONS = """
INSERT INTO token_versions (id, token_id, number, fingerprint, embedding, sha256, recipe, metrics, state, parent_version,
    created_by, created_at, provenance, state_at)
SELECT (t - 1) * :versions + v, t, v, :fingerprint, :embedding, :sha256, '{}', :metrics,
    CASE WHEN v = :versions THEN 'proven' ELSE 'rejected' END, nullif(v - 1, 0), 'benchmark', now(), '{}', now()
FROM generate_series(1, :tokens) t, generate_series(1, :versions) v
"""
_ALIASES = """
INSERT INTO token_aliases (token_id, alias, number, updated_at) SELECT n, 'active', :versions, now()
FROM generate_series(1, :tokens) n
"""


def fill(url: str, tokens: int) -> None:
    """A store with so many tokens, their last version active; embeddings as wide as the embedded model's."""
    open_store(url).close()
    embedding, sha256 = tensor_codec.encode_embedding(
        np.random.default_rng(0).standard_normal((2, 256)).astype(np.float32)
    )
    losses = np.geomspace(1, 0.1, 100).tolist()
    values = {
        "tokens": tokens,
        "versions": VERSIONS,
        "project": PROJECT,
        "embedding": embedding,
        "sha256": sha256,
        "fingerprint": json.dumps({"space": "a" * 64, "model": "tiny", "settings": {"steps": 1}}),
        "metrics": json.dumps({"train_iou": 0.7, "losses": losses, "reason": "It is used."}),
    }
    engine = make_engine(locate(url))
    with engine.begin() as connection:
        for statement in (_TOKENS, _VERSIONS, _ALIASES):
            used = {name: value for name, value in values.items() if f":{name}" in statement}
            connection.execute(text(statement), used)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


def works(store: TokenStore, tokens: int) -> dict[str, Callable[[], object]]:
    """What is timed: the active tokens of a project's ten labels, and pages of 50 of the list."""
    project = Scope("default", "0")
    labels = [f"class {n:06d}" for n in range(1, 11)]
    middle = store.find_tokens(limit=tokens // 2 if tokens <= 1000 else 1000).after
    return {
        "active": lambda: store.find_active(project, labels),
        "page": lambda: store.find_tokens(limit=50),
        "later_page": lambda: store.find_tokens(limit=50, after=middle),
        "newest_page": lambda: store.find_tokens(TokenFilter(order="updated"), limit=50),
        "project_page": lambda: store.find_tokens(TokenFilter(scope=project), limit=50),
        "search": lambda: store.find_tokens(TokenFilter(name_contains="0042"), limit=50),
    }


def figures(repeats: int = REPEATS) -> dict[str, Any]:
    """Median milliseconds of each work in both stores, and ``<work>_ratio`` = large over small."""
    from postgres_server import running

    with running() as server, server.database() as small_url, server.database() as large_url:
        fill(small_url, SMALL)
        fill(large_url, LARGE)
        small, large = open_store(small_url), open_store(large_url)
        try:
            pairs = {name: (work, works(large, LARGE)[name]) for name, work in works(small, SMALL).items()}
            times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in pairs}
            for turn in range(repeats + 3):
                for name, both in pairs.items():
                    for side, work in enumerate(both):
                        start = time.perf_counter()
                        work()
                        if turn >= 3:  # the first turns warm connections and caches
                            times[name][side].append(time.perf_counter() - start)
        finally:
            small.close()
            large.close()
    found: dict[str, Any] = {"tokens": [SMALL, LARGE], "versions": [SMALL * VERSIONS, LARGE * VERSIONS]}
    for name, (few, many) in times.items():
        medians = [statistics.median(few), statistics.median(many)]
        found[f"{name}_ms"] = [round(1000 * m, 2) for m in medians]
        found[f"{name}_ratio"] = medians[1] / medians[0]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.registry", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    found = figures(options.repeats)
    for name in [key.removesuffix("_ratio") for key in found if key.endswith("_ratio")]:
        few, many = found[f"{name}_ms"]
        print(
            f"{name.replace('_', ' '):13} {found[f'{name}_ratio']:5.2f} x  ({few} ms with 1,000 versions, {many} ms with 100,000)"
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
