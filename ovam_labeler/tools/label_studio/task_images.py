"""Which pictures a task shows: one for each image tag that is drawn on, several where the tag shows a list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ovam_labeler.errors import BadConfigError, BadRequestError
from ovam_labeler.tools.contract import ImageField, ParsedConfig
from ovam_labeler.tools.label_studio.label_config import MAX_IMAGES, parse_label_config


@dataclass(frozen=True, slots=True)
class TaskImage:
    """One picture of a task.

    Attributes:
        name: of its image tag: the ``to_name`` of its regions.
        item: its place in the tag's list (``item_index`` of its regions); None where the tag shows one picture.
        reference: path or URL as the task names it, without a user name or password.
        first: whether it is the config's first picture, under whose name alone most tasks are known.
    """

    name: str
    item: int | None
    reference: str
    first: bool

    @property
    def suffix(self) -> str:
        """What tells this picture's corrections from those of the task's other pictures; empty for the first."""
        if self.first:
            return ""
        return f"@{self.name}" if not self.item else f"@{self.name}#{self.item}"

    def shows(self, to_name: str, item: int | None) -> bool:
        """Whether a region of this ``to_name`` and ``item_index`` lies on this picture."""
        return to_name == self.name and (item or 0) == (self.item or 0)


@dataclass(frozen=True, slots=True)
class ReadTask:
    """What is read of a task in a request; ``prompt`` is ``""`` where it has none."""

    id: str
    pictures: tuple[TaskImage, ...]
    prompt: str


def read_task(task: object, config: ParsedConfig) -> ReadTask:
    """A task of a request.  Raises BadRequestError: no id, no data, no picture."""
    name = task_id(task)
    if not isinstance(task, Mapping) or not name:
        raise BadRequestError("A task must be an object with an id.")
    data = task.get("data")
    if not isinstance(data, Mapping):
        raise BadRequestError("The task's field 'data' must be an object.")
    prompt = data.get("prompt")
    return ReadTask(name, tuple(task_images(data, config)), prompt if isinstance(prompt, str) else "")


def task_id(task: object) -> str:
    """A task's id as text; ``""`` where it has none."""
    value = task.get("id") if isinstance(task, Mapping) else None
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""


def task_images(data: Mapping[str, Any], config: ParsedConfig) -> list[TaskImage]:
    """The task's pictures in the config's order; one that the task lacks is left out.

    Raises:
        BadRequestError: none is there, a field is no text (or list of texts), or there are more than 32.
    """
    found: list[TaskImage] = []
    for place, field in enumerate(config.images):
        value = _value(data, field.key)
        if value is None and place:
            continue
        texts = value if field.many and isinstance(value, list) else [value]
        for item, text in enumerate(texts):
            reference = _reference(text, field)
            found.append(TaskImage(field.name, item if field.many else None, reference, not place and not item))
    if not found:
        raise BadRequestError(f"The task has no image in its field '{config.image_key}'.")
    if len(found) > MAX_IMAGES:
        raise BadRequestError(f"The task shows {len(found)} images; at most {MAX_IMAGES} are read.")
    return found


def shows_several(config_text: str) -> bool:
    """Whether tasks of this label config may show several pictures; False for a config that cannot be read."""
    try:
        config = parse_label_config(config_text)
    except BadConfigError:
        return False
    return len(config.images) > 1 or any(field.many for field in config.images)


def _value(data: Mapping[str, Any], key: str) -> Any:
    value: Any = data.get(key)
    if value is None and "." in key:
        value = data
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _reference(value: object, field: ImageField) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRequestError(f"The task has no image in its field '{field.key}'.")
    try:
        parts = urlsplit(value.strip())
    except ValueError as error:
        raise BadRequestError(f"The task's field '{field.key}' is no usable address.") from error
    if "@" in parts.netloc:
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        return urlunsplit(parts)
    return value.strip()
