"""Finds base models, methods and refiners by entry point; a broken plugin is listed with its error and stops nothing.

Built-ins register in ``pyproject.toml`` exactly as strangers' plugins do.  Where the distribution's metadata is missing
(the packages are imported from a source tree that was never installed), the built-ins come from :data:`BUILT_INS`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import torch

from backends.contract import API_VERSION, Backend, BackendError, BackendSpec, MaskMethod, Progress, Refiner

DISTRIBUTION = "ovam-labeler"
BACKENDS_GROUP = "ovam_labeler.backends"
METHODS_GROUP = "ovam_labeler.methods"
REFINERS_GROUP = "ovam_labeler.refiners"

#: What ``pyproject.toml`` registers; used only where the distribution is not installed.
BUILT_INS: Mapping[str, Mapping[str, str]] = {
    BACKENDS_GROUP: {
        "embedded": "backends.diffusion.tiny:SPEC",
        "stable-diffusion": "backends.diffusion.stable_diffusion:SPEC",
    },
    METHODS_GROUP: {
        "ovam": "backends.methods.ovam:OVAM",
        "ovam-self-attention": "backends.methods.ovam:OVAM_SELF_ATTENTION",
        "ovam-linear": "backends.methods.linear:OVAM_LINEAR",
    },
    REFINERS_GROUP: {
        "dense-crf": "backends.refiners.dense_crf:DenseCRF",
        "guided-filter": "backends.refiners.guided_filter:GuidedFilter",
    },
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """One plugin, usable or not.

    Attributes:
        name: how it is chosen.
        distribution: name of the installed distribution that brings it.
        spec: what the entry point resolves to; ``None`` where it is broken.
        error: one sentence saying why it is broken; ``None`` where it works.
    """

    name: str
    distribution: str
    spec: T | None
    error: str | None

    def get(self) -> T:
        """The plugin itself.

        Raises:
            BackendError: it is broken; the sentence says why.
        """
        if self.spec is None:
            raise BackendError(f"Plugin {self.name!r} of {self.distribution} cannot be used: {self.error}")
        return self.spec


def backends() -> Mapping[str, Found[BackendSpec]]:
    """Base models by name, usable and broken, sorted by name."""
    return _plugins(BACKENDS_GROUP, _as_backend)


def methods() -> Mapping[str, Found[MaskMethod]]:
    """Mask methods by name, usable and broken, sorted by name."""
    return _plugins(METHODS_GROUP, _as_method)


def refiners() -> Mapping[str, Found[Refiner]]:
    """Refiners by name, usable and broken, sorted by name."""
    return _plugins(REFINERS_GROUP, _as_refiner)


def refresh() -> None:
    """Forget what was found, for a process that installs a plugin while it runs (and for tests)."""
    _plugins.cache_clear()


def load_backend(
    model: str = "embedded", backend: str | None = None, device: str = "cpu", progress: Progress | None = None
) -> Backend:
    """Load a base model.

    Args:
        model: ``"embedded"``, a model folder, or a hub name.
        backend: name of the backend to use; ``None`` = the one that accepts ``model``, strangers' before built-ins
            (the built-in ``stable-diffusion`` accepts every hub name, a plugin only those it knows).
        device: torch device, as ``"cpu"`` or ``"cuda"``; ``"auto"`` = CUDA where there is one.
        progress: called while weights are fetched and read.

    Raises:
        BackendError: no such backend, none accepts the model, or it cannot be loaded; says what to do.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = backends()
    if backend is not None:
        if backend not in found:
            raise BackendError(f"Backend {backend!r} is not installed; installed are {_names(found)}.")
        return found[backend].get().load(model, device, progress)
    usable = [f for f in found.values() if f.spec is not None]
    usable.sort(key=lambda f: (f.distribution == DISTRIBUTION, f.name))
    for candidate in usable:
        if _accepts(candidate.get(), model):
            return candidate.get().load(model, device, progress)
    raise BackendError(
        f"No backend can load model {model!r}; give 'embedded', a folder holding a diffusers model_index.json, or a hub "
        f"name such as stable-diffusion-v1-5/stable-diffusion-v1-5 (backends asked: {_names(found)})."
    )


def _accepts(spec: BackendSpec, model: str) -> bool:
    """Whether ``spec`` takes the model; a plugin that fails at the question does not."""
    try:
        return bool(spec.accepts(model))
    except (Exception, SystemExit):  # a stranger's code: any failure means "not this one"
        return False


def _names(found: Mapping[str, Found[Any]]) -> str:
    return ", ".join(f.name if f.error is None else f"{f.name} (broken: {f.error})" for f in found.values()) or "none"


@lru_cache(maxsize=8)
def _plugins(group: str, check: Callable[[Any], Any]) -> Mapping[str, Found[Any]]:
    """Load every entry point of ``group``; failures become ``Found.error``."""
    found: dict[str, Found[Any]] = {}
    for point in _entry_points(group):
        distribution = point.dist.name if point.dist is not None else DISTRIBUTION
        name = point.name
        if name in found:  # the first of two keeps the name; the other is shown, not dropped
            taken = found[name].distribution
            name = f"{point.name} ({distribution})"
            found[name] = Found(name, distribution, None, f"the name {point.name!r} is taken by {taken}")
            continue
        try:
            found[name] = Found(name, distribution, check(point.load()), None)
        except (Exception, SystemExit) as error:  # whatever a stranger's module does on import is its own error only
            found[name] = Found(name, distribution, None, _sentence(error))
    return dict(sorted(found.items()))


def _entry_points(group: str) -> list[importlib.metadata.EntryPoint]:
    """Entry points of ``group``, built-ins first, so that no plugin can take a built-in's name."""
    installed = list(importlib.metadata.entry_points(group=group))
    own = [p for p in installed if p.dist is not None and p.dist.name == DISTRIBUTION]
    if not own:
        own = [importlib.metadata.EntryPoint(name, value, group) for name, value in BUILT_INS.get(group, {}).items()]
    return own + [p for p in installed if p.dist is None or p.dist.name != DISTRIBUTION]


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, BackendError) else f"{type(error).__name__}: {text}"


def _as_backend(value: Any) -> BackendSpec:
    if not isinstance(value, BackendSpec):
        raise BackendError(f"it resolves to {type(value).__name__}, a BackendSpec is needed")
    _check_version(value)
    return value


def _as_method(value: Any) -> MaskMethod:
    return _as_object(value, ("needs", "maps"), "MaskMethod")


def _as_refiner(value: Any) -> Refiner:
    return _as_object(value, ("refine",), "Refiner")


def _as_object(value: Any, functions: tuple[str, ...], kind: str) -> Any:
    """An instance with a ``name`` and ``functions``; a class is instantiated without arguments."""
    instance = value() if isinstance(value, type) else value
    missing = [f for f in functions if not callable(getattr(instance, f, None))]
    if not isinstance(getattr(instance, "name", None), str):
        missing.append("name")
    if missing:
        raise BackendError(f"it resolves to {type(instance).__name__}, which lacks {', '.join(missing)} of a {kind}")
    _check_version(instance)
    return instance


def _check_version(value: Any) -> None:
    version = getattr(value, "api_version", API_VERSION)
    if version != API_VERSION:
        raise BackendError(f"it was built for version {version} of the plugin contract; this is version {API_VERSION}")
