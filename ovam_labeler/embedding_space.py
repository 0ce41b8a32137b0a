"""Whether a token may be used in the base model at hand: refused in another embedding space, warned of in another setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.contract import Fingerprint

#: Recorded beside the model's own settings by whoever learned the token; not a setting of the model.
_OWN = ("method",)


def refusal(stored: Mapping[str, Any], here: Fingerprint) -> str | None:
    """Why a token of fingerprint ``stored`` cannot be used here, as the end of a sentence; None where it can.

    Names what differs: the text encoder, the tokenizer, the key projections, or several of them.
    """
    if stored.get("space") == here.space:
        return None
    parts = stored.get("parts")
    known = parts if isinstance(parts, Mapping) else {}
    differing = [name for name, digest in here.parts.items() if name in known and known[name] != digest]
    model = stored.get("model") or "unknown"
    if not differing:
        return f"it was learned in another embedding space ({str(stored.get('space'))[:12]}, base model {model})"
    which = differing[0] if len(differing) == 1 else f"{', '.join(differing[:-1])} and {differing[-1]}"
    verb = "is" if len(differing) == 1 and not which.endswith("s") else "are"
    return f"its {which} {verb} not this base model's (it was learned in {model}, this is {here.model})"


def differences(stored: Mapping[str, Any], here: Fingerprint) -> list[str]:
    """Reading settings in which a usable token's learning differed: ``"timesteps [50] there, [20] here"``."""
    settings = stored.get("settings")
    there = dict(settings) if isinstance(settings, Mapping) else {}
    plain = {name: value for name, value in there.items() if name not in _OWN}
    found = Fingerprint(here.space, here.model, plain).differences(here)
    return [f"{name} {a!r} there, {b!r} here" for name, (a, b) in found.items() if _text(a) != _text(b)]


def _text(value: Any) -> str:
    """JSON knows no tuples: what was stored as one comes back as a list."""
    return repr(list(value)) if isinstance(value, tuple) else repr(value)
