"""A model folder's own defaults (``ovam.json``) for attribution, reading, generation and decisions, checked field by field.

Without the file a model gets the paper's settings: "A photograph of a <class>", tau 0.4 for words and 0.8 for tokens, and
the SGD recipe of A.1.  The paper has no presence decision; ``attention.presence`` says what stands in for a measured one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from backends.attention.presence import UNCALIBRATED_TOKENS, UNCALIBRATED_WORDS
from backends.contract import BackendError, Calibration, TokenRecipe
from backends.diffusion.model_folder import SETTINGS, ModelFolder

FULL, PAIR = "full", "pair"
_OPTIMIZERS = ("sgd", "adam", "lbfgs")
_STARTS = ("noun", "thing_noun", "given")


@dataclass(frozen=True, slots=True)
class Attribution:
    """How a class word becomes X' of Eq. 5.

    Attributes:
        template: prompt with ``{label}`` in it.
        context: ``"full"``: the whole prompt with start and end tokens competes in the softmax, as in the paper;
            ``"pair"``: each piece of the label competes with the start token alone, as embedded models are trained.
        thing: the word for any object.
        loss_at: where token optimization measures its loss, see ``attention.token_optimization.learn_token``.
    """

    template: str = "A photograph of a {label}"
    context: str = FULL
    thing: str = "thing"
    loss_at: str = "target"


@dataclass(frozen=True, slots=True)
class ReadDefaults:
    """How received images are read and images are generated.

    Attributes:
        timesteps: training timesteps at which a received image is read.
        side: side in pixels of the square whose area a received image is brought to; ``None`` = the model's native one.
        steps, guidance, size: of generation; size (height, width), ``None`` = native.
        groups: most groups of neighbouring steps whose mean queries are kept of a generated image; ``None`` = every step.
        spread: whether maps are spread by the UNet's self-attention, see :mod:`backends.attention.spread`.
    """

    timesteps: tuple[int, ...] = (100,)
    side: int | None = None
    steps: int = 30
    guidance: float = 7.5
    size: tuple[int, int] | None = None
    groups: int | None = None
    spread: bool = False


_ATTRIBUTION, _READ = Attribution(), ReadDefaults()


def attribution_of(folder: ModelFolder) -> Attribution:
    """The ``attribution`` section.

    Raises:
        BackendError: a field has a wrong value.
    """
    section = folder.section("attribution")
    context = _choice(section, "context", (FULL, PAIR), FULL)
    found = Attribution(
        template=str(section.get("template", _ATTRIBUTION.template)),
        context=context,
        thing=str(section.get("thing", _ATTRIBUTION.thing)),
        # Models read in pairs are trained against area fractions on the map's own grid.
        loss_at=_choice(section, "loss_at", ("target", "map"), "map" if context == PAIR else "target"),
    )
    if found.template.count("{label}") != 1:
        raise BackendError(f"{SETTINGS}: 'template' must contain {{label}} once; it is {found.template!r}.")
    return found


def reading_of(folder: ModelFolder) -> ReadDefaults:
    """The ``read`` and ``generate`` sections.

    Raises:
        BackendError: a field has a wrong value.
    """
    read, make = folder.section("read"), folder.section("generate")
    timesteps = read.get("timesteps", list(_READ.timesteps))
    size = make.get("size")
    if not isinstance(timesteps, list) or not timesteps or not all(_is_int(t) for t in timesteps):
        raise BackendError(f"{SETTINGS}: 'timesteps' must be a list of whole numbers; it is {timesteps!r}.")
    if size is not None and not (isinstance(size, list) and len(size) == 2 and all(_is_int(s) for s in size)):
        raise BackendError(f"{SETTINGS}: 'size' must be [height, width]; it is {size!r}.")
    return ReadDefaults(
        timesteps=tuple(timesteps),
        side=_optional_int(read, "side"),
        steps=_optional_int(make, "steps") or _READ.steps,
        guidance=_number(make, "guidance", _READ.guidance),
        size=None if size is None else (size[0], size[1]),
        groups=_optional_int(make, "groups"),
        spread=_flag(read, "spread"),
    )


def calibration_of(folder: ModelFolder) -> Calibration:
    """The ``calibration`` section over the paper's settings.

    Raises:
        BackendError: a field has a wrong value.
    """
    section = folder.section("calibration")
    return Calibration(
        word_threshold=_number(section, "word_threshold", 0.4, 0.0, 1.0),
        token_threshold=_number(section, "token_threshold", 0.8, 0.0, 1.0),
        word_presence=_weights(section, "word_presence", UNCALIBRATED_WORDS),
        token_presence=_weights(section, "token_presence", UNCALIBRATED_TOKENS),
        presence_cut=_number(section, "presence_cut", 0.5, 0.0, 1.0),
        word_recipe=_recipe(section, "word_recipe"),
        token_recipe=_recipe(section, "token_recipe"),
    )


def _recipe(section: Mapping[str, Any], name: str) -> TokenRecipe:
    given = section.get(name, {})
    if not isinstance(given, dict):
        raise BackendError(f"{SETTINGS}: {name!r} must be an object; it is {given!r}.")
    known: dict[str, Any] = {f.name: type(f.default) for f in fields(TokenRecipe)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:  # written for a later version
            continue
        kind = known[key]
        right = isinstance(value, kind) or (kind is float and _is_int(value))
        if not right or (kind is int and isinstance(value, bool)):
            raise BackendError(f"{SETTINGS}: {key!r} of {name!r} must be of type {kind.__name__}; it is {value!r}.")
        values[key] = kind(value)
    recipe = TokenRecipe(**values)
    if recipe.optimizer not in _OPTIMIZERS or recipe.start not in _STARTS:
        raise BackendError(
            f"{SETTINGS}: {name!r} needs an optimizer of {', '.join(_OPTIMIZERS)} and a start of {', '.join(_STARTS)}."
        )
    return recipe


def _weights(section: Mapping[str, Any], name: str, default: Mapping[str, float]) -> Mapping[str, float]:
    """Logistic weights by feature name."""
    given = section.get(name, dict(default))
    if not isinstance(given, dict):
        raise BackendError(f"{SETTINGS}: {name!r} must be an object of numbers; it is {given!r}.")
    return {str(key): _number(given, key, 0.0) for key in given}


def _number(
    section: Mapping[str, Any], name: str, default: float, low: float = -math.inf, high: float = math.inf
) -> float:
    value = section.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BackendError(f"{SETTINGS}: {name!r} must be a finite number; it is {value!r}.")
    if not low <= value <= high:
        raise BackendError(f"{SETTINGS}: {name!r} must lie in {low}..{high}; it is {value!r}.")
    return float(value)


def _flag(section: Mapping[str, Any], name: str) -> bool:
    value = section.get(name, False)
    if not isinstance(value, bool):
        raise BackendError(f"{SETTINGS}: {name!r} must be true or false; it is {value!r}.")
    return value


def _optional_int(section: Mapping[str, Any], name: str) -> int | None:
    value = section.get(name)
    if value is not None and (not _is_int(value) or value < 1):
        raise BackendError(f"{SETTINGS}: {name!r} must be a whole number of at least 1; it is {value!r}.")
    return value


def _choice(section: Mapping[str, Any], name: str, allowed: tuple[str, ...], default: str) -> str:
    value = section.get(name, default)
    if value not in allowed:
        raise BackendError(f"{SETTINGS}: {name!r} must be one of {', '.join(allowed)}; it is {value!r}.")
    return str(value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
