"""Captures on disk: one file each, memory-mapped on reading, bounded in size, safe between processes.

A file's name is the image's identity and the hash of everything that shapes the capture.  A damaged file is deleted and
counts as missing, so that it is made again: a received image is read again, a generated one generated again
(:mod:`ovam_labeler.inference`).  Writing is a temporary file and a rename, so no reader ever sees half a capture; what a
power cut tears is found by its checksum.  The least recently used goes first, but never what a pending job needs
(:mod:`ovam_labeler.pending_images`).  The cache is a convenience: when it cannot write, the caller goes on with what it has.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from backends.contract import Capture
from ovam_labeler.capture_file import DAMAGE, Header, read_capture, read_header, write_capture

log = logging.getLogger(__name__)

#: Raised where the meaning of a stored capture changes; part of every key.
FORMAT = 3
_SUFFIX = ".safetensors"
_STALE_SECONDS = 3600.0
_LOCK_SECONDS = 10.0
_IMAGE_PART = 16


@dataclass(frozen=True, slots=True)
class CaptureKey:
    """Everything that shapes a capture.

    Attributes:
        image: sha256 of the image file's bytes, hex.
        origin: ``"received"`` or ``"generated"``; a generated capture is of the image's own making, never a re-reading.
        needs: ``Needs.key()``.
        reader: ``{"backend": name, "space": fingerprint, "settings": reader settings}``.
        prompt: that conditioned a received image's pass; "" for a generated image, whose making is in its record.
        preset: how the queries are stored.
    """

    image: str
    origin: str
    needs: str
    reader: Mapping[str, Any]
    prompt: str = ""
    preset: str = ""

    def __post_init__(self) -> None:
        if not self.image.isalnum():  # it names a file
            raise ValueError(f"image is {self.image[:80]!r}; the hex sha256 of a file is needed.")

    def digest(self) -> str:
        """Hex name of the entry, equal across processes and versions of Python."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True, ensure_ascii=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One file of the cache.

    Attributes:
        header: None where the file is damaged.
        nbytes: of the file.
        used: last use, seconds since 1970.
        pinned: a pending job needs it.
    """

    path: Path
    header: Header | None
    nbytes: int
    used: float
    pinned: bool


@dataclass(frozen=True, slots=True, order=True)
class _File:
    used_ns: int
    nbytes: int
    path: Path

    @property
    def image(self) -> str:
        return self.path.name.partition("-")[0]


class CaptureCache:
    """Size-bounded, least-recently-used store of captures in a folder.  Thread-safe; safe with several processes."""

    def __init__(self, folder: Path, max_bytes: int, pinned: Callable[[], Collection[str]] = frozenset[str]) -> None:
        """
        Args:
            folder: made when missing.
            max_bytes: bounds the sum of the files' sizes, 0 keeps nothing.  Only pinned entries may exceed it.
            pinned: identities of the images whose entries must stay; asked whenever something has to go, in whichever
                process that is.  May raise: then nothing is evicted this time.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        self._pinned = pinned
        self._verified: dict[str, tuple[int, int, int]] = {}
        self._warned = False

    @property
    def max_bytes(self) -> int:
        return self._max_bytes

    def path(self, key: CaptureKey) -> Path:
        digest = key.digest()
        return self._folder / digest[:2] / f"{key.image[:_IMAGE_PART]}-{digest}{_SUFFIX}"

    def get(self, key: CaptureKey) -> Capture | None:
        """The capture, its tensors mapped from the file (never write into them); None when missing or damaged."""
        path = self.path(key)
        try:
            status = path.stat()
            identity = (status.st_ino, status.st_mtime_ns, status.st_size)
            # The mapped bytes are summed once for each version of a file in this process.
            capture = read_capture(path, verify=self._verified.get(path.name) != identity)
            self._verified[path.name] = identity
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, RuntimeError) as error:
            log.warning("An entry of the capture cache cannot be read now (%s): %s", path.name, error)
            return None
        except DAMAGE as error:
            log.warning("Deleting a damaged entry of the capture cache (%s): %s", path.name, error)
            self._verified.pop(path.name, None)
            path.unlink(missing_ok=True)
            return None
        self._touch(path)
        return capture

    def put(self, key: CaptureKey, capture: Capture) -> bool:
        """Store a capture; False when it was not kept (larger than the room there is, or the disk refuses).  Never raises."""
        if capture.nbytes() > self._max_bytes:
            return False
        path = self.path(key)
        temporary = path.with_name(f"{path.stem}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_capture(temporary, capture, asdict(key))
            os.replace(temporary, path)
        except (OSError, SafetensorError, RuntimeError) as error:
            with suppress(OSError):
                temporary.unlink()
            if not self._warned:
                self._warned = True
                log.warning("Captures are not being cached, so images are read again each time: %s", error)
            return False
        self._warned = False
        files = self._files()
        if sum(file.nbytes for file in files) > self._max_bytes:
            self._evict(self._max_bytes, last=path)
            return path.exists()
        return True

    def size(self) -> int:
        """Bytes on disk now."""
        return sum(file.nbytes for file in self._files())

    def entries(self) -> list[CacheEntry]:
        """What is in the cache, last used first."""
        pinned = self._pinned_names()
        found = []
        for file in sorted(self._files(), reverse=True):
            try:
                header: Header | None = read_header(file.path)
            except FileNotFoundError:
                continue
            except (OSError, ValueError):
                header = None
            found.append(CacheEntry(file.path, header, file.nbytes, file.used_ns / 1e9, file.image in pinned))
        return found

    def prune(self, max_bytes: int) -> tuple[int, int]:
        """Evict down to a size, pinned entries excepted; (entries, bytes) that went."""
        return self._evict(max_bytes)

    def _evict(self, max_bytes: int, last: Path | None = None) -> tuple[int, int]:
        """Remove the least recently used until the rest fits; ``last`` goes only where nothing else is left to go."""
        gone = freed = 0
        try:
            with FileLock(self._folder / ".evict.lock", timeout=_LOCK_SECONDS):
                pinned = self._pinned_names()
                files = sorted(self._files(), key=lambda file: (file.path == last, file))
                total = sum(file.nbytes for file in files)
                for file in files:
                    if total <= max_bytes:
                        break
                    if file.image not in pinned:
                        file.path.unlink(missing_ok=True)
                        self._verified.pop(file.path.name, None)
                        total, gone, freed = total - file.nbytes, gone + 1, freed + file.nbytes
                self._remove_stale()
            if total > max_bytes:
                log.warning("The capture cache holds %d bytes for pending jobs, more than %d.", total, max_bytes)
        except (Timeout, OSError) as error:
            log.warning("The capture cache could not be trimmed now: %s", error)
        except Exception as error:  # the store that knows the pending jobs; guessing would break their promise
            log.warning("The capture cache was not trimmed, since pending jobs could not be asked for: %s", error)
        return gone, freed

    def _pinned_names(self) -> set[str]:
        return {image[:_IMAGE_PART] for image in self._pinned()}

    def _touch(self, path: Path) -> None:
        """Mark as just used.  The access time carries it: the modification time identifies a verified file."""
        # Evicted by another process meanwhile, or a read-only folder: the mapping stays valid.
        with suppress(OSError):
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

    def _files(self) -> list[_File]:
        found = []
        for path in self._folder.glob(f"??/*{_SUFFIX}"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append(_File(max(status.st_atime_ns, status.st_mtime_ns), status.st_size, path))
        return found

    def _remove_stale(self) -> None:
        """Remove what a killed process left half written."""
        for path in self._folder.glob("??/*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue
