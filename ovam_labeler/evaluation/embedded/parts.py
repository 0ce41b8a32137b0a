"""One part of the measurement, in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch

from backends.discovery import load_backend
from ovam_labeler.evaluation.embedded.bench import Bench, Tally
from ovam_labeler.evaluation.embedded.drawings import ANNOTATED, make_pictures
from ovam_labeler.evaluation.embedded.known import measure_known
from ovam_labeler.evaluation.embedded.novel import measure_novel

#: Model, known words?, split, every how manieth concept.
Job = tuple[str, bool, Literal["test", "val"], int]


def folder_of(model: str) -> Path:
    """The model's folder."""
    from backends.diffusion.tiny.loader import NAME, WEIGHTS

    return WEIGHTS if model == NAME else Path(model)


def measure(job: Job) -> Tally:
    """One split of known or novel concepts, in a process of its own."""
    model, has_word, split, every = job
    torch.set_num_threads(1)
    bench = Bench(load_backend(model))
    trained = json.loads((folder_of(model) / "split.json").read_text(encoding="utf-8"))["known"]
    pictures = make_pictures(split, has_word, every, 1 if has_word else ANNOTATED)
    return (measure_known if has_word else measure_novel)(bench, pictures, trained)
