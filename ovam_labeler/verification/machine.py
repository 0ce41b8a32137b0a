"""The machine and the libraries a figure was measured with: nothing that names a person, a host or a folder."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch

from ovam_labeler.reader_thread import available_cores

_LIBRARIES = ("ovam-labeler", "torch", "diffusers", "transformers", "safetensors", "numpy", "numba", "pillow")


def machine(device: str) -> dict[str, Any]:
    """Processor, memory and device in words and numbers."""
    found: dict[str, Any] = {
        "system": platform.system(),
        "processor": _processor(),
        "cores": available_cores(),
        "torch_threads": torch.get_num_threads(),
        "memory_bytes": _memory(),
        "device": device,
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = {"name": properties.name, "memory_bytes": properties.total_memory, "cuda": torch.version.cuda}
    return found


def versions() -> dict[str, str]:
    """Of Python and of the libraries that shape a figure."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
