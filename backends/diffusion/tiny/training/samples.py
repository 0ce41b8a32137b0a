"""Stage ``samples``: small pictures for the model card: words, learned tokens, generated images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .bench import Bench
from .export import WEIGHTS
from .fits import fit_of
from .measure import learn_tokens
from .sources import run_folder
from .testset import GROUPS

TARGET = Path("docs/images")
PROMPTS = ("a photograph of a cat", "a red apple", "a house", "a fire engine", "a penguin", "a tree")


def heat(image: np.ndarray, values: Tensor) -> np.ndarray:
    """A 16 x 16 map, stretched to its range, over a grey picture."""
    up = F.interpolate(values[None, None], image.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    unit = ((up - up.min()) / (up.max() - up.min() + 1e-8)).numpy()
    colour = cv2.applyColorMap((unit * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    grey = np.repeat(image.mean(2, keepdims=True), 3, 2)
    return (0.35 * grey + 0.65 * colour).astype(np.uint8)


def outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with the exact mask's outline."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(image), contours, -1, (255, 255, 255), 2)


def write(path: Path, columns: list[list[np.ndarray]]) -> None:
    """Columns of tiles as one PNG of few colours."""
    sheet = np.concatenate([np.concatenate(column, 0) for column in columns], 1)
    sheet = cv2.resize(sheet, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), sheet[..., ::-1] // 8 * 8, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(path, path.stat().st_size, "bytes")


def words_sheet(bench: Bench, images: np.ndarray, rng: np.random.Generator, count: int = 10) -> list[list[np.ndarray]]:
    """Per scene: the truth, the right word, a distractor's word, an absent word."""
    labels, columns = bench.library.labels, []
    for row in rng.choice(np.where(bench.kind == "T")[0], count, replace=False):
        absent = labels[int(rng.choice(bench.library.known))]
        names = [labels[bench.concept[row]], labels[bench.distractors[row][0]], absent]
        maps = bench.word_maps(bench.take([row]), names)[0]
        columns.append([outline(images[row], bench.mask[row]), *(heat(images[row], m) for m in maps)])
    return columns


def tokens_sheet(
    bench: Bench, images: np.ndarray, weights: Path, rng: np.random.Generator, count: int = 10
) -> list[list[np.ndarray]]:
    """Per concept: the annotated scene, another scene with the truth, its own word, "thing", the learned token."""
    recipe = json.loads((weights / "ovam.json").read_text())["calibration"]["token_recipe"]
    tokens, columns = learn_tokens(bench, fit_of(recipe)), []
    for concept in rng.choice(np.unique(bench.concept), count, replace=False):
        number = int(np.where(tokens.concepts == concept)[0][0])
        scene = int(tokens.scenes[number][0])
        rows = [r for r in bench.rows(concept, "T") if bench.family[r] != bench.family[scene]]
        row = int(rng.choice(rows))
        queries = bench.take([row])
        maps = [*bench.word_maps(queries, [bench.library.labels[concept], "thing"])[0]]
        maps.append(bench.token_maps(queries, tokens.values[number : number + 1])[0, 0])
        annotated = outline(images[scene], bench.mask[scene])
        columns.append([annotated, outline(images[row], bench.mask[row]), *(heat(images[row], m) for m in maps)])
    return columns


def generated_sheet(weights: Path) -> list[list[np.ndarray]]:
    """Two seeds of a few prompts."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(weights, safety_checker=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    settings = json.loads((weights / "ovam.json").read_text())["generate"]
    return [
        [
            np.asarray(
                pipeline(
                    prompt,
                    num_inference_steps=settings["steps"],
                    guidance_scale=settings["guidance"],
                    generator=torch.Generator().manual_seed(seed),
                ).images[0]
            )
            for seed in (0, 1)
        ]
        for prompt in PROMPTS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--target", type=Path, default=TARGET)
    a = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data, rng = np.load(run_folder() / "test.npz"), np.random.default_rng(3)
    known, novel = Bench(("known_test",), a.weights), Bench(("novel_test",), a.weights)
    images = {group: data["image"][data["group"] == GROUPS.index(group)] for group in ("known_test", "novel_test")}
    write(a.target / "tiny_words.png", words_sheet(known, images["known_test"], rng))
    write(a.target / "tiny_tokens.png", tokens_sheet(novel, images["novel_test"], a.weights, rng))
    write(a.target / "tiny_generated.png", generated_sheet(a.weights))


if __name__ == "__main__":
    main()
