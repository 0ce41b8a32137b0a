"""One capture in one safetensors file: its tensors, :class:`CaptureInfo` as JSON, the cache key's parts, a checksum.

Reading maps the tensors from the file.  A file that was cut short or changed fails its checksum; nothing here repairs.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from backends.contract import Capture, CaptureInfo, need_of

#: What a damaged file raises on reading.
DAMAGE = (SafetensorError, ValueError, KeyError, TypeError)

#: A header longer than this is no header of ours.
_MOST_HEADER = 1 << 24


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself without its tensors being read.

    Attributes:
        key: parts of the cache key it was stored under (image, origin, needs, preset, ...).
        bytes_by_need: bytes of each need's tensors.
    """

    key: Mapping[str, Any]
    bytes_by_need: Mapping[str, int]


def write_capture(path: Path, capture: Capture, key: Mapping[str, Any]) -> None:
    """Write a new file.

    Raises:
        OSError, SafetensorError: the disk refuses.
    """
    tensors = {name: _owned(tensor) for name, tensor in capture.tensors.items()}
    header = {
        "info": json.dumps({field.name: getattr(capture.info, field.name) for field in fields(capture.info)}),
        "key": json.dumps(dict(key), default=str),
        "crc32": str(_checksum(tensors)),
    }
    save_file(tensors, path, metadata=header)


def read_capture(path: Path, *, verify: bool) -> Capture:
    """The capture with its tensors mapped.

    Raises:
        FileNotFoundError: no such file.
        One of :data:`DAMAGE`: it is damaged; with ``verify`` a single flipped bit is found.
    """
    with safe_open(path, framework="pt", device="cpu") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    info = _info(json.loads(header["info"]))
    if verify and _checksum(tensors) != int(header["crc32"]):
        raise ValueError("its checksum does not match")
    return Capture(info, tensors)


def read_header(path: Path) -> Header:
    """Key and sizes from the file's first kilobytes.

    Raises:
        OSError: it cannot be read; ValueError: it is no file of ours.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= _MOST_HEADER:
            raise ValueError("it has no header")
        values = json.loads(file.read(length))
    try:
        metadata = values.pop("__metadata__", {})
        sizes: dict[str, int] = {}
        for name, tensor in values.items():
            first, end = tensor["data_offsets"]
            sizes[need_of(name)] = sizes.get(need_of(name), 0) + int(end) - int(first)
        return Header(json.loads(metadata.get("key", "{}")), sizes)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("its header is of another form") from error


def _owned(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous CPU tensor that shares its memory with no other, as safetensors wants it."""
    tensor = tensor.detach().to("cpu").contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size() else tensor.clone()


def _checksum(tensors: Mapping[str, torch.Tensor]) -> int:
    total = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        total = zlib.crc32(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode(), total)
        if tensor.numel():
            total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return total


def _info(values: Mapping[str, Any]) -> CaptureInfo:
    known = {field.name: values[field.name] for field in fields(CaptureInfo) if field.name in values}
    for name in ("image_size", "latent_size", "timesteps"):
        known[name] = tuple(known[name])
    return CaptureInfo(**known)
