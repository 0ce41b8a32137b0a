"""Which concepts and which drawings training may see. Deterministic, so that it can be repeated and checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .sources import STYLES

NOVEL_TEST = """cow,motorcycle,couch and lamp,bottle with popping cork,ewe,zebra,giraffe,kangaroo,owl,octopus,snail,
butterfly,crocodile,hedgehog,rhinoceros,camel,parrot,pineapple,strawberry,carrot,broccoli,pizza,hamburger,doughnut,
banana,watermelon,cupcake,popcorn,lollipop,cactus,sunflower,tulip,mushroom,maple leaf,guitar,violin,trumpet,drum,
saxophone,tractor,helicopter,rocket,sailboat,bicycle,locomotive,castle,church,tent,scissors,hammer,key,light bulb,
umbrella with rain drops,crown,backpack,jeans,necktie,teddy bear,soccer ball,telephone,camera,alarm clock,
hourglass done,microscope,snowman,chair""".replace("\n", "").split(",")
NOVEL_VALIDATION = [
    "tiger",
    "frog",
    "grapes",
    "croissant",
    "ambulance",
    "bell",
    "t-shirt",
    "microphone",
    "skateboard",
    "cherries",
    "palm tree",
    "dolphin",
    "candle",
    "trophy",
]
# Look-alikes of novel concepts: in no split, so that a novel concept is really new.
SIBLINGS = """cow face,ox,water buffalo,motor scooter,ram,two-hump camel,brown mushroom,banjo,postal horn,long drum,
camping,circus tent,hammer and pick,hammer and wrench,old key,closed umbrella,umbrella,umbrella on ground,
telephone receiver,camera with flash,hourglass not done,snowman without snow,seat,tiger face,bell with slash,
bellhop bell,studio microphone,baby bottle,train,stopwatch,timer clock,locked with key,candy,
ice cream""".replace("\n", "").split(",")
KNOWN_TEST, KNOWN_VALIDATION, HELD_FAMILIES = 60, 20, 2


def make_split(labels: list[str], styles_of: list[list[str]], seed: int = 2026) -> dict:
    """Split by label. ``styles_of[i]`` lists the styles that draw concept i.

    Known test / validation concepts are trained, but two whole design families of each are held out.
    """
    style = {s.name: s for s in STYLES}
    missing = set(NOVEL_TEST + NOVEL_VALIDATION) - set(labels)
    if missing:
        raise ValueError(f"novel concepts without sprites: {sorted(missing)}")
    out = {*NOVEL_TEST, *NOVEL_VALIDATION, *SIBLINGS}
    rng = np.random.default_rng(seed)
    families = {}
    for label, names in zip(labels, styles_of, strict=True):
        families[label] = list(dict.fromkeys(style[n].family for n in names if not style[n].test_only))
    unseen = {label for label, names in zip(labels, styles_of, strict=True) if any(style[n].test_only for n in names)}
    able = [label for label in labels if label not in out and len(families[label]) >= 4 and label in unseen]
    picked = [able[i] for i in rng.permutation(len(able))[: KNOWN_TEST + KNOWN_VALIDATION]]
    held = {label: sorted(rng.choice(families[label], HELD_FAMILIES, replace=False).tolist()) for label in picked}
    return {
        "seed": seed,
        "known": [label for label in labels if label not in out],
        "known_test": picked[:KNOWN_TEST],
        "known_validation": picked[KNOWN_TEST:],
        "novel_test": NOVEL_TEST,
        "novel_validation": NOVEL_VALIDATION,
        "left_out_siblings": [label for label in SIBLINGS if label in labels],
        "held_out_families": held,
        "test_only_styles": [s.name for s in STYLES if s.test_only],
    }


def load_split(path: Path) -> dict:
    """The split as saved by the data stage."""
    return json.loads(path.read_text())
