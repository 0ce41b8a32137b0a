"""Captures on disk: one safetensors file each, memory-mapped on reading, bounded in size, safe between processes.

A file's name is the hash of everything that shapes the capture; its header holds :class:`CaptureInfo` as JSON and a
checksum.  A damaged file is deleted and counts as missing.  Writing is a temporary file, fsync, rename, so no reader
ever sees half a capture.  The cache is a convenience: when it cannot write, the caller goes on with what it has.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from backends.contract import Capture, CaptureInfo

log = logging.getLogger(__name__)

#: Raised where the meaning of a stored capture changes; part of every key.
FORMAT = 1
_SUFFIX = ".safetensors"
_STALE_SECONDS = 3600.0
_LOCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class CaptureKey:
    """Everything that shapes a capture.

    Attributes:
        image: sha256 of the image file's bytes.
        origin: ``"received"`` or ``"generated"``; a generated capture is of the image's own making, never a re-reading.
        needs: ``Needs.key()``.
        reader: ``{"backend": name, "space": fingerprint, "settings": reader settings}``.
        prompt: that conditioned a received image's pass; "" for a generated image, whose making is in its record.
    """

    image: str
    origin: str
    needs: str
    reader: Mapping[str, Any]
    prompt: str = ""

    def digest(self) -> str:
        """Hex name of the entry, equal across processes and versions of Python."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True, ensure_ascii=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


class CaptureCache:
    """Size-bounded, least-recently-used store of captures in a folder."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Args: folder is made when missing; max_bytes bounds the sum of the files' sizes, 0 keeps nothing."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._verified: dict[str, tuple[int, int, int]] = {}
        self._warned = False

    def path(self, key: CaptureKey) -> Path:
        digest = key.digest()
        return self._folder / digest[:2] / (digest + _SUFFIX)

    def get(self, key: CaptureKey) -> Capture | None:
        """The capture, its tensors mapped from the file (never write into them); None when missing or damaged."""
        path = self.path(key)
        try:
            status = path.stat()
            capture = self._read(path, (status.st_ino, status.st_mtime_ns, status.st_size))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, RuntimeError) as error:
            log.warning("An entry of the capture cache cannot be read now (%s): %s", path.name, error)
            return None
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            log.warning("Deleting a damaged entry of the capture cache (%s): %s", path.name, error)
            self._verified.pop(path.name, None)
            path.unlink(missing_ok=True)
            return None
        self._touch(path)
        return capture

    def put(self, key: CaptureKey, capture: Capture) -> bool:
        """Store a capture; False when it was not kept (larger than the bound, or the disk refuses).  Never raises."""
        if capture.nbytes() > self._max_bytes:
            return False
        path = self.path(key)
        temporary = path.with_name(f"{path.stem}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            tensors = {name: _owned(tensor) for name, tensor in capture.tensors.items()}
            header = {"info": json.dumps(_info_to_json(capture.info)), "crc32": str(_checksum(tensors))}
            save_file(tensors, temporary, metadata=header)
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
        except (OSError, SafetensorError, RuntimeError) as error:
            with suppress(OSError):
                temporary.unlink()
            if not self._warned:
                self._warned = True
                log.warning("Captures are not being cached, so images are read again each time: %s", error)
            return False
        self._warned = False
        self._evict(keep=path)
        return True

    def size(self) -> int:
        """Bytes on disk now."""
        return sum(size for _, size, _ in self._entries())

    def _read(self, path: Path, identity: tuple[int, int, int]) -> Capture:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        info = _info_from_json(json.loads(header["info"]))
        # The mapped bytes are summed once for each version of a file in this process: a flipped bit is no capture.
        if self._verified.get(path.name) != identity:
            if _checksum(tensors) != int(header["crc32"]):
                raise ValueError("its checksum does not match")
            self._verified[path.name] = identity
        return Capture(info, tensors)

    def _touch(self, path: Path) -> None:
        """Mark as just used.  The access time carries it: the modification time identifies a verified file."""
        # Evicted by another process meanwhile, or a read-only folder: the mapping stays valid.
        with suppress(OSError):
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

    def _entries(self) -> list[tuple[int, int, Path]]:
        """(last use, bytes, path) of each file."""
        found = []
        for path in self._folder.glob(f"??/*{_SUFFIX}"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append((max(status.st_atime_ns, status.st_mtime_ns), status.st_size, path))
        return found

    def _evict(self, keep: Path) -> None:
        entries = self._entries()
        if sum(size for _, size, _ in entries) <= self._max_bytes:
            return
        try:
            with FileLock(self._folder / ".evict.lock", timeout=_LOCK_SECONDS):
                entries = sorted(self._entries())
                total = sum(size for _, size, _ in entries)
                for _, size, path in entries:
                    if total <= self._max_bytes:
                        break
                    if path != keep:
                        path.unlink(missing_ok=True)
                        self._verified.pop(path.name, None)
                        total -= size
                self._remove_stale()
        except (Timeout, OSError) as error:
            log.warning("The capture cache could not be trimmed now: %s", error)

    def _remove_stale(self) -> None:
        """Remove what a killed process left half written."""
        for path in self._folder.glob("??/*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue


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


def _info_to_json(info: CaptureInfo) -> dict[str, Any]:
    return {field.name: getattr(info, field.name) for field in fields(info)}


def _info_from_json(values: Mapping[str, Any]) -> CaptureInfo:
    known = {field.name: values[field.name] for field in fields(CaptureInfo) if field.name in values}
    for name in ("image_size", "latent_size", "timesteps"):
        known[name] = tuple(known[name])
    return CaptureInfo(**known)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
