"""Which nouns share a meaning, from Debian's ``wordnet-base`` (Princeton WordNet 3.0; its licence permits any use)."""

from __future__ import annotations

import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path

from .sources import run_folder

PACKAGE = "wordnet-base"
#: WordNet's files of nouns for things that can be seen: animals, artifacts, body, food, objects, people, plants.
CONCRETE = frozenset(("05", "06", "08", "13", "17", "18", "20"))


def fetch() -> Path:
    """The unpacked Debian package's folder of dictionaries."""
    target = run_folder() / "deb" / "wordnet"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", PACKAGE], cwd=target.parent, check=True)
        (archive,) = target.parent.glob(f"{PACKAGE}_*.deb")
        subprocess.run(["dpkg", "-x", archive, target], check=True)
    return target / "usr/share/wordnet"


class Nouns:
    """Senses (numbers) of lower-case nouns, most frequent first, and how senses relate."""

    def __init__(self, folder: Path) -> None:
        self.senses: dict[str, list[int]] = {}
        self.broader: dict[int, list[int]] = {}
        self.concrete: set[int] = set()
        self.glosses: dict[int, str] = {}
        self.mentions: Counter[str] = Counter()
        plain: set[str] = set()
        for line in (folder / "data.noun").read_text("utf-8").splitlines():
            if line.startswith("  "):
                continue
            head, _, gloss = line.partition(" | ")
            fields = head.split()
            number, words = int(fields[0]), int(fields[3], 16)
            at = 4 + 2 * words
            pointers = [fields[at + 1 + 4 * k : at + 5 + 4 * k] for k in range(int(fields[at]))]
            self.broader[number] = [int(p[1]) for p in pointers if p[0] in ("@", "@i") and p[2] == "n"]
            self.glosses[number] = gloss.split(";")[0].strip()
            self.mentions.update(re.findall("[a-z]+", gloss.lower()))
            plain.update(w for w in fields[4 : 4 + 2 * words : 2] if re.fullmatch("[a-z]{3,}", w))
            if fields[1] in CONCRETE:
                self.concrete.add(number)
        for line in (folder / "index.noun").read_text("utf-8").splitlines():
            if not line.startswith("  "):
                fields = line.split()
                count = int(fields[2])
                self.senses[fields[0].replace("_", " ")] = [int(n) for n in fields[-count:]]

        self.plain = plain & self.senses.keys()

    def common(self, most: int, without: Callable[[str], bool]) -> list[str]:
        """The ``most`` lower-case words for things that can be seen that WordNet's own definitions mention most."""
        able = [w for w in self.plain if self.is_concrete(w) and not without(w)]
        return sorted(able, key=lambda w: (-self.mentions[w], w))[:most]

    def is_concrete(self, word: str) -> bool:
        """Whether one of the word's first two senses can be seen."""
        return any(s in self.concrete for s in self.senses.get(word, ())[:2])

    def definitions(self, word: str, most: int = 3) -> list[str]:
        """``word: definition`` of those of its first ``most`` senses that can be seen."""
        return [f"{word}: {self.glosses[s]}" for s in self.senses.get(word, ())[:most] if s in self.concrete]

    @cache  # noqa: B019 - one object a run
    def above(self, sense: int, most: int = 3) -> dict[int, int]:
        """Broader senses within ``most`` steps, with their distance; the sense itself at 0."""
        found, edge = {sense: 0}, [sense]
        for distance in range(1, most + 1):
            edge = [b for s in edge for b in self.broader.get(s, ()) if b not in found]
            found |= dict.fromkeys(edge, distance)
        return found


def kinship(nouns: Nouns, words: list[str], names: list[str]) -> dict[tuple[int, int], float]:
    """(word, name) -> 0..1: 1 for a shared first sense, less for later senses and for broader or narrower ones.

    Only the first three senses of a word and the first two concrete ones of a name count.
    """
    by_sense: dict[int, list[tuple[int, float]]] = defaultdict(list)
    by_broader: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for k, name in enumerate(names):
        senses = [s for s in nouns.senses.get(name, ()) if s in nouns.concrete][:2]
        for rank, sense in enumerate(senses):
            by_sense[sense].append((k, 0.7**rank))
            for broader, distance in nouns.above(sense).items():
                if distance:
                    by_broader[broader].append((k, 0.7**rank * 0.5**distance))
    found: dict[tuple[int, int], float] = {}
    for w, word in enumerate(words):
        for rank, sense in enumerate(nouns.senses.get(word, ())[:3]):
            weight = 0.7**rank
            for above, distance in nouns.above(sense).items():
                for k, value in by_sense.get(above, ()):
                    found[w, k] = max(found.get((w, k), 0.0), weight * value * 0.6**distance)
            for k, value in by_broader.get(sense, ()):
                found[w, k] = max(found.get((w, k), 0.0), weight * value)
    return found
