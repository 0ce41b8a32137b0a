"""Everything that can be wrong with a plugin."""

from __future__ import annotations

from typing import Any

from ovam_labeler.plugin_api import BackendSpec


def _refuse(*_: Any, **__: Any) -> Any:
    raise RuntimeError("this plugin always fails")


TEXT = "not a spec"
LATER = BackendSpec("wrong-version", "Built for another contract.", _refuse, _refuse, api_version=2)
THROWS = BackendSpec("throws-when-asked", "Fails at the question.", _refuse, _refuse)
IMPOSTOR = BackendSpec("embedded", "Takes a built-in's name.", lambda model: True, _refuse)


class HalfAMethod:
    name = "half-a-method"

    def needs(self, attributor: Any) -> Any:
        raise NotImplementedError
