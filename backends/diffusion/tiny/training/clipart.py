"""Drawings beyond the emoji sets: OpenClipart (public domain), by title, from Debian's ``openclipart-svg``.

A drawing whose title is a name of a known concept becomes one more style of that concept; another usable title becomes
a concept of its own.  Whatever looks like a held-out concept, by any word that goes with the file, is left out.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .concepts import squash
from .sources import run_folder

PACKAGE = "openclipart-svg"
MOST_BYTES = 400_000  # a larger drawing takes seconds to render
_FOLDERS = re.compile(
    r"(animals|food|tools|transportation|plants|buildings|education|electronics|science|containers|office|decorations|"
    r"people/clothing|recreation|computer/hardware)/|computer/[^/]+$"
)
_SKIPPED = re.compile(
    r"boating_rules|aiga|road_signs|games/cards|games/chess|jigsaw|/icons/|flag|map_|games/dice|hummer"
)
_VAGUE = re.compile(
    "buildings|education|computer|recreation/(holiday|party|art)|unsorted"
)  # titles that name no object
# Authors who titled in other languages.
_FOREIGN = re.compile(r"architetto|jacq|etienne|yves|jean-victor|aubanel|monnie|sebastien|patricia_f")
_NO_OBJECT = frozenset(
    re.findall(
        "[a-z]+",
        """clip art clipart set icons icon symbol sign logo border pattern background collection scene map abstract
various theme illustration frame text outline card cards silhouette simple contour rules part""",
    )
)

# Words that name a held-out concept or one that looks like it; a file that mentions any is not used.
HELD_OUT_WORDS = frozenset(
    re.findall(
        "[a-z]+",
        """cow cows ox oxen bull calf cattle bovine buffalo bison motorcycle motorbike motor scooter moped vespa couch
sofa settee loveseat lamp lamps bottle bottles champagne wine beer ewe sheep ram lamb goat zebra zebras
giraffe kangaroo wallaby owl owls octopus squid snail slug butterfly butterflies moth crocodile alligator
caiman hedgehog porcupine rhinoceros rhino camel dromedary llama parrot macaw parakeet pineapple ananas
strawberry strawberries carrot carrots broccoli cauliflower pizza hamburger burger cheeseburger doughnut donut
banana bananas watermelon melon cupcake muffin popcorn lollipop lolly candy cactus cacti sunflower tulip
tulips mushroom mushrooms toadstool fungus maple leaf leaves guitar guitars banjo ukulele mandolin lute bass
violin fiddle cello viola contrabass trumpet horn cornet bugle trombone drum drums timpani bongo snare
saxophone sax tractor helicopter chopper rocket missile shuttle spaceship spacecraft sailboat sail sailing
yacht ketch schooner bicycle bike cycle tricycle bicycles locomotive train trains railway engine tram castle
castles fortress tower church chapel cathedral mosque temple tent tents camping scissors scissor shears hammer
hammers mallet key keys lightbulb bulb bulbs umbrella umbrellas parasol crown crowns tiara backpack rucksack
knapsack jeans pants trousers shorts necktie tie ties teddy soccer football ball balls phone phones telephone
telephones cellphone handset camera cameras photo coolpix clock clocks watch alarm stopwatch timer hourglass
sandglass microscope snowman snowmen chair chairs seat seats stool bench armchair tiger tigers tigre leopard
cheetah frog frogs toad grapes grape croissant ambulance bell bells tshirt shirt shirts jersey microphone mic
skateboard skate cherry cherries palm palms dolphin dolphins porpoise candle candles candlestick trophy cup
cups goblet feline boat boats boating ship ships nautical regatta marine coconut bank banks wheelchair light
lights goal""",
    )
)


@dataclass(frozen=True)
class Extra:
    """One drawing from a further source: file or SVG text, its name and the known concept's label that it belongs to.

    ``work`` and ``credit``: what the attribution file lists.
    """

    source: str | Path
    name: str
    label: str | None
    work: str = ""
    credit: str = ""


def fetch() -> Path:
    """The unpacked Debian package's folder of drawings (``apt-get download``, then ``dpkg``)."""
    target = run_folder() / "deb" / "openclipart"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", PACKAGE], cwd=target.parent, check=True)
        (archive,) = target.parent.glob(f"{PACKAGE}_*.deb")
        subprocess.run(["dpkg", "-x", archive, target], check=True)
    return target / "usr/share/openclipart/svg"


def words_of(text: str) -> list[str]:
    """Lower-case letter runs; camel case and digits separate."""
    return re.findall("[a-z]+", re.sub("(?<=[a-z])(?=[A-Z])", " ", text).lower())


def singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def is_held_out(words: Sequence[str]) -> bool:
    """Whether any word names a held-out concept or a lookalike of one."""
    return any(w in HELD_OUT_WORDS or singular(w) in HELD_OUT_WORDS for w in words)


def drawings(names: dict[str, str], vocabulary: set[str]) -> list[Extra]:
    """Usable drawings. ``names``: squashed name to label of every known concept; ``vocabulary``: words with a meaning."""
    root, found = fetch(), []
    for path in sorted(root.rglob("*.svg")):
        place = path.relative_to(root).as_posix()
        if not _FOLDERS.match(place) or _SKIPPED.search(place) or path.stat().st_size > MOST_BYTES:
            continue
        text = path.read_text("utf-8", errors="ignore")
        match = re.search(r"<dc:title[^>]*>(.*?)</dc:title>", text, re.S)
        title = re.sub("<.*?>", "", match.group(1)) if match else ""
        keywords = re.findall(r"<rdf:li>(.*?)</rdf:li>", text, re.S)
        if is_held_out([*words_of(title), *words_of(place.replace("_", " ")), *words_of(" ".join(keywords))]):
            continue
        if _FOREIGN.search(path.name):
            continue
        name = title_name(title, path.stem, vocabulary)
        if name is None:
            continue
        label = known_label(name, names)
        if label is None and (_VAGUE.match(place) or len(name.split()) > 2):
            continue
        creator = re.search(r"<dc:creator>.*?<dc:title[^>]*>(.*?)</dc:title>", text, re.S)
        credit = re.sub("<.*?>", "", creator.group(1)).strip() if creator else ""
        found.append(Extra(path, name, label, place, credit))
    return found


def title_name(title: str, stem: str, vocabulary: set[str]) -> str | None:
    """One to three words of the title (of the file name if the title names a collection); none if they mean nothing."""
    if title.startswith("Clipart by"):
        title = re.sub("^(contour|w)_", "", stem)
    words = [w for w in words_of(title.split(" - ")[0]) if len(w) > 1]
    if not 1 <= len(words) <= 3 or not all(w in vocabulary or singular(w) in vocabulary for w in words):
        return None
    return None if _NO_OBJECT & set(words) else " ".join(words)


def known_label(name: str, names: dict[str, str]) -> str | None:
    """The known concept called so, by the whole name, else by its last word."""
    words = name.split()
    for candidate in (name, " ".join([*words[:-1], singular(words[-1])]), words[-1], singular(words[-1])):
        if squash(candidate) in names:
            return names[squash(candidate)]
    return None
