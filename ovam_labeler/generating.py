"""What to generate for a project: prompts x seeds, each picture a job of its own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ovam_labeler.errors import BadRequestError

#: Most pictures asked for at once, and characters of a prompt.
MOST_PICTURES, MOST_CHARACTERS = 10_000, 1000

MOST_SEED = 2**63 - 1

_SIZE = re.compile(r"(\d{1,5})\s*[x×]\s*(\d{1,5})")


@dataclass(frozen=True, slots=True)
class GenerateWish:
    """Pictures of every prompt with every seed.

    Attributes:
        prompts: each once, in order.
        seed, count: the first seed, and how many; the next ones count up.
        steps, guidance, negative_prompt, size: None = the base model's own; ``size`` is (height, width) in pixels.
    """

    prompts: tuple[str, ...]
    seed: int = 0
    count: int = 1
    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str = ""
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Raises BadRequestError: a value is out of bounds; names it and what is allowed."""
        if not self.prompts or any(not prompt.strip() for prompt in self.prompts):
            raise BadRequestError("The prompt is empty; say what the picture shows.")
        if (longest := max(map(len, (*self.prompts, self.negative_prompt)))) > MOST_CHARACTERS:
            raise BadRequestError(f"A prompt has {longest} characters; at most {MOST_CHARACTERS} are allowed.")
        _within("seed", self.seed, 0, MOST_SEED - self.count)
        _within("count", self.count, 1, MOST_PICTURES)
        if len(self.prompts) * self.count > MOST_PICTURES:
            raise BadRequestError(
                f"{len(self.prompts)} prompts with {self.count} seeds are {len(self.prompts) * self.count} pictures; at "
                f"most {MOST_PICTURES} may be asked for at once."
            )
        if self.steps is not None:
            _within("steps", self.steps, 1, 1000)
        if self.guidance is not None:
            _within("guidance", self.guidance, 0, 100)
        for side in self.size or ():
            _within("size", side, 8, 8192)

    def options(self) -> dict[str, Any]:
        """What is passed to the base model, without what is left to it."""
        given: dict[str, Any] = {
            "steps": self.steps,
            "guidance": self.guidance,
            "negative_prompt": self.negative_prompt or None,
            "size": None if self.size is None else list(self.size),
        }
        return {name: value for name, value in given.items() if value is not None}

    def pictures(self) -> list[dict[str, Any]]:
        """``{"prompt", "seed", "options"}`` of each, prompt by prompt."""
        return [
            {"prompt": prompt, "seed": self.seed + number, "options": self.options()}
            for prompt in dict.fromkeys(p.strip() for p in self.prompts)
            for number in range(self.count)
        ]


def generation_id(picture: Mapping[str, Any], model: str) -> str:
    """16 hex digits of what makes a picture: equal prompts, seeds and options of one base model give equal pictures."""
    parts = [str(picture["prompt"]), int(picture["seed"]), dict(picture.get("options") or {}), model]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def read_prompts(text: str) -> tuple[str, ...]:
    """One prompt a line; empty lines are passed over."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def read_size(text: str) -> tuple[int, int] | None:
    """``WIDTHxHEIGHT`` -> (height, width); None for no text.  Raises BadRequestError."""
    if not text.strip():
        return None
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise BadRequestError(f"The size is {text[:40]!r}; write it as WIDTHxHEIGHT in pixels, such as 512x512.")
    return int(found.group(2)), int(found.group(1))


def count_states(states: Sequence[str]) -> dict[str, int]:
    """How many jobs ended, failed and are still to come: ``{"done", "failed", "left", "all"}``."""
    done = sum(state == "done" for state in states)
    failed = sum(state in ("failed", "cancelled") for state in states)
    return {"done": done, "failed": failed, "left": len(states) - done - failed, "all": len(states)}


def _within(name: str, value: float, least: float, most: float) -> None:
    if isinstance(value, bool) or not least <= value <= most:
        raise BadRequestError(f"The {name} is {value}; {least} to {most} is allowed.")
