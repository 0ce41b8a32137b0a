"""A store in a data folder, and the ``tokens`` commands over it in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from backends.contract import Attributor
from ovam_labeler.cli.main import app
from ovam_labeler.errors import OvamError
from token_store import open_store
from token_store.contract import TokenStore
from token_store.entities import NewTokenVersion, Scope, TokenVersion


class Registry:
    """A store in a data folder, and the command line over it in this process."""

    def __init__(self, folder: Path, attributor: Attributor) -> None:
        self.folder = folder
        self.attributor = attributor
        folder.mkdir(parents=True, exist_ok=True)
        self.environment = {"OVAM_DATA_DIR": str(folder), "OVAM_MODEL": "embedded", "COLUMNS": "200"}
        self.url = f"sqlite:///{folder / 'ovam.sqlite3'}"

    def store(self) -> TokenStore:
        return open_store(self.url)

    def embedding(self, word: str, push: float = 0.0) -> np.ndarray:
        """A word's own pair, moved a little in a fixed direction as learning would."""
        start = self.attributor.words(word)[0].embeddings[0].numpy()
        noun = self.attributor.noun(word)
        step = push * (noun - self.attributor.noun("thing"))
        return np.stack([start - step, noun + step]).astype(np.float32)

    def add(self, word: str, scope: Scope | None = None, push: float = 0.0, **fields: Any) -> TokenVersion:
        mark = self.attributor.fingerprint
        aliases = fields.pop("aliases", ("active",))
        values: dict[str, Any] = {
            "fingerprint": {"space": mark.space, "model": mark.model, "settings": dict(mark.settings)},
            "embedding": self.embedding(word, push),
            "recipe": {"optimizer": "adam", "epochs": 100},
            "metrics": {"train_iou": 0.75, "losses": [0.5, 0.25], "reason": "because"},
            "created_by": "anna",
        }
        store = self.store()
        try:
            return store.add_version(
                scope or Scope.everywhere(), word, NewTokenVersion(**{**values, **fields}), aliases=aliases
            )
        finally:
            store.close()

    def run(self, *arguments: object, code: int = 0) -> tuple[str, str]:
        """(stdout, stderr) of a command; an error is one sentence, as ``main.run`` prints it."""
        result = CliRunner().invoke(app, ["tokens", *map(str, arguments)], env=self.environment)
        if isinstance(result.exception, OvamError):
            assert result.exception.exit_code == code, str(result.exception)
            assert str(result.exception).count("\n") == 0 and str(result.exception)[-1] in ".'`"
            return result.stdout, str(result.exception)
        assert result.exit_code == code, f"{result.stdout}{result.stderr}{result.exception!r}"
        return result.stdout, result.stderr

    def json(self, *arguments: object, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code)[0])
