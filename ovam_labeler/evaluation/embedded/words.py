"""Names of known test concepts that no training caption used. Checked against the model's own list before use."""

from __future__ import annotations

from collections.abc import Collection, Mapping

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "alien monster": ("extraterrestrial",),
    "boar": ("hog", "wild pig"),
    "cat face": ("kitty", "feline"),
    "cherry blossom": ("sakura",),
    "clapper board": ("film slate",),
    "clown face": ("jester",),
    "deciduous tree": ("oak", "tree"),
    "derelict house": ("ruin", "abandoned building"),
    "fire": ("flame", "blaze"),
    "fireworks": ("firework",),
    "flashlight": ("torch",),
    "high-heeled shoe": ("stiletto",),
    "horse": ("pony", "stallion"),
    "horse face": ("pony", "stallion"),
    "jack-o-lantern": ("pumpkin", "halloween pumpkin"),
    "koala": ("koala bear",),
    "lady beetle": ("ladybug", "ladybird"),
    "light rail": ("tramway", "trolley"),
    "locked": ("padlock",),
    "metro": ("subway",),
    "mountain": ("peak", "hill"),
    "pig face": ("swine", "piglet"),
    "ping pong": ("table tennis",),
    "police car": ("patrol car", "cop car"),
    "radio": ("wireless set",),
    "ring": ("wedding ring", "engagement ring"),
    "rooster": ("cockerel",),
    "round pushpin": ("thumbtack", "drawing pin"),
    "running shoe": ("trainer", "sports shoe"),
    "shrimp": ("prawn",),
    "slot machine": ("fruit machine",),
    "stuffed flatbread": ("kebab", "gyro"),
    "tangerine": ("clementine", "satsuma"),
    "triangular ruler": ("set square",),
    "turtle": ("tortoise",),
    "watch": ("wristwatch",),
    "woman’s clothes": ("blouse",),
    "wrench": ("spanner",),
}


def unseen_synonyms(concept: str, known_words: Collection[str]) -> list[str]:
    """The concept's synonyms that are no word of the model's training."""
    return [name for name in SYNONYMS.get(concept, ()) if name not in known_words]
