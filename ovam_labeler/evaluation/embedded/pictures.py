"""``python -m ovam_labeler.evaluation.embedded.pictures``: the model card's pictures: words, learned tokens, generated images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch

from backends.attention.binarize import relative_map
from backends.contract import Needs
from backends.discovery import load_backend
from ovam_labeler.evaluation.embedded.bench import Bench
from ovam_labeler.evaluation.embedded.drawings import Picture, make_pictures
from ovam_labeler.evaluation.embedded.parts import folder_of

TARGET = Path("docs/images")
#: Alone and in pairs.
PROMPTS = (
    "a photograph of a cat face",
    "a red apple",
    "a house",
    "a fire engine",
    "a penguin",
    "a tree",
    "a photograph of a balloon and a house",
    "a photograph of a dog face and a bus",
)
COLUMNS, TILE = 10, 112


def heat(picture: Picture, values: torch.Tensor) -> np.ndarray:
    """A map, stretched to its range, over the grey picture."""
    unit = relative_map(values, picture.truth.shape)
    colour = cv2.applyColorMap((unit * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    grey = np.repeat(picture.image.mean(2, keepdims=True), 3, 2)
    return (0.35 * grey + 0.65 * colour).astype(np.uint8)


def outline(picture: Picture) -> np.ndarray:
    """The picture with the truth's outline."""
    contours, _ = cv2.findContours(picture.truth.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(picture.image), contours, -1, (255, 255, 255), 4)


def write(path: Path, columns: list[list[np.ndarray]]) -> None:
    """Columns of tiles as one PNG of few colours."""
    tiles = [[cv2.resize(t, (TILE, TILE), interpolation=cv2.INTER_AREA) for t in column] for column in columns]
    sheet = np.concatenate([np.concatenate(column, 0) for column in tiles], 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), sheet[..., ::-1] // 8 * 8, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(path, path.stat().st_size, "bytes")


def words_sheet(bench: Bench, trained: list[str], rng: np.random.Generator) -> list[list[np.ndarray]]:
    """Per picture: the truth, the right word, another object's word, an absent word."""
    pictures = [p for p in make_pictures("test", True, 1, 1) if p.kind == "seen"]
    columns: list[list[np.ndarray]] = []
    for i in rng.permutation(len(pictures)):
        picture = pictures[i]
        others = [n for n in picture.masks if n != picture.concept.name]
        absent = [w for w in trained if w not in picture.masks]
        names = [picture.concept.name, others[0], absent[int(rng.integers(len(absent)))]]
        maps = bench.maps(picture, [bench.attributor.words(n) for n in names])
        columns.append([outline(picture), *(heat(picture, m) for m in maps)])
        if len(columns) == COLUMNS:
            break
    return columns


def tokens_sheet(bench: Bench, rng: np.random.Generator) -> list[list[np.ndarray]]:
    """Per concept: the annotated picture, another picture with the truth, its own word, "thing", the learned token."""
    pictures = make_pictures("test", False, 1, 1)
    names, columns = sorted({p.concept.name for p in pictures}), []
    for i in rng.choice(len(names), COLUMNS, replace=False):
        shown = next(p for p in pictures if p.concept.name == names[i] and p.kind == "annotated")
        tests = [p for p in pictures if p.concept.name == names[i] and p.kind == "seen" and p.family != shown.family]
        token = bench.learn([shown], bench.attributor.calibration.token_recipe)
        picture = tests[int(rng.integers(len(tests)))]
        words = [bench.attributor.words(w) for w in (names[i], "thing")]
        maps = bench.maps(picture, [*words, token])
        columns.append([outline(shown), outline(picture), *(heat(picture, m) for m in maps)])
    return columns


def generated_sheet(bench: Bench) -> list[list[np.ndarray]]:
    """Two seeds of a few prompts."""
    return [[bench.reader.generate(prompt, Needs(), seed=seed).image for seed in (0, 1)] for prompt in PROMPTS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng, bench = np.random.default_rng(3), Bench(load_backend(arguments.model))
    trained = json.loads((folder_of(arguments.model) / "split.json").read_text(encoding="utf-8"))["known"]
    write(arguments.target / "tiny_words.png", words_sheet(bench, trained, rng))
    write(arguments.target / "tiny_tokens.png", tokens_sheet(bench, rng))
    write(arguments.target / "tiny_generated.png", generated_sheet(bench))


if __name__ == "__main__":
    main()
