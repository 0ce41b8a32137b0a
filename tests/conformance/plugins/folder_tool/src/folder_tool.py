"""A stranger's labeling tool: pictures in a folder, masks as lists of pixel indices.  Imports the plugin API alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ovam_labeler.plugin_api import (
    BadConfigError,
    BadImageError,
    Correction,
    Label,
    LoadedImage,
    NewCorrection,
    ParsedConfig,
    Truth,
)


class FolderTool:
    name = "folder"
    api_version = 1

    def parse_config(self, config):
        lines = [line for line in config.splitlines() if line.strip()]
        if not lines:
            raise BadConfigError("The label list is empty; write one label a line.")
        return ParsedConfig(tuple(Label(line) for line in lines), "picture", "masks", "picture", "pixels")

    def write(self, proposals, config, image_size, version):
        drawn = {p.label: np.flatnonzero(p.mask).tolist() for p in proposals if p.present and p.mask.any()}
        return {"version": version, "size": list(image_size), "masks": drawn}

    def read_correction(self, event, scope, served):
        if not event["masks"]:
            return None
        return NewCorrection(
            scope, str(event["id"]), str(event["saved"]), str(event["task"]), event["picture"],
            {"tool": self.name, "size": event["size"], "masks": event["masks"]}, tuple(event["masks"]),
        )  # fmt: skip

    def truths_of(self, correction: Correction, image: LoadedImage):
        if tuple(correction.payload["size"]) != (image.height, image.width):
            return [], ["The masks were drawn on a picture of another size."]
        truths = []
        for label, pixels in correction.payload["masks"].items():
            mask = np.zeros(image.height * image.width, dtype=bool)
            mask[pixels] = True
            mask = mask.reshape(image.height, image.width)
            kind = "positive" if mask.any() else "negative"
            truths.append(Truth(label, kind, mask, np.zeros_like(mask)))
        return truths, []

    def image_of(self, correction: Correction):
        path = Path(correction.image_ref)
        if not path.is_file():
            raise BadImageError(f"There is no picture {path}.")
        pixels = np.frombuffer(path.read_bytes(), dtype=np.uint8).reshape(*correction.payload["size"], 3)
        return LoadedImage(pixels, "0" * 64), ""
