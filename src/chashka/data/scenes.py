"""Composed scenes: what stands where, drawn by a seed from a grammar, with captions in the ten main languages.

A scene is a description; training composes its picture from the shards' drawings on the device it trains on
(``chashka.training.scenes``), so that scenes have no end and take a few bytes each. Kinds:

single     one thing in a colour or a size
count      two to five of one thing
pair       two things in a relation, or simply together
many       three things, or a pair on a ground

The table (``scenes.safetensors``): ``noun``, ``colour``, ``size`` int8 (S, 5), -1 where there is none, in the order in which the
caption names them; ``relation``, ``ground``, ``ground_colour``, ``style`` int8 (S,), -1: none; captions as ``ids`` int32 with
``offsets`` (R + 1,), ``scene`` int32 (R,) and ``locale`` int8 (R,). Metadata: the emoji of the nouns, locales, styles.

Held out from the first day (``held_out``): one in ten of the triples (relation, a, b) is never composed, and one in twenty things
comes in compositions only (``only_composed``; a U-Net's recipe names them in ``composed_only``). ``write_held_out`` lists both.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chashka.data.composed_words import COLOURS, EMOJI, GROUNDS, NOUNS, RELATIONS
from chashka.data.grammar import Thing, language
from chashka.data.styles import STYLE_WORDS, STYLED_FRAMES
from chashka.data.tensors import write_tensors
from chashka.data.wordings import WORDINGS, articles
from chashka.data.words import MAIN_LOCALES
from chashka.errors import FileError

THINGS = 5
"""The most things of a scene."""
INSIDE, ON, UNDER, LEFT, RIGHT, BESIDE, BEHIND, ABOVE, WEARING = range(9)
HOLDERS = ("1f375", "1f4e6", "1f963", "1f9fa", "1faa3")
"""What things can be inside of: teacup, box, bowl, basket, bucket."""
WORN = ("1f3a9", "1f451")
"""Hat and crown."""
WEARERS = (
    "1f408",
    "1f415",
    "1f426",
    "1f40e",
    "1f404",
    "1f416",
    "1f407",
    "1f401",
    "1f43b",
    "1f98a",
    "1f981",
    "1f405",
    "1f418",
    "1f412",
    "1f427",
    "1f989",
    "1f986",
    "1f438",
    "1f422",
    "1f419",
    "1f433",
    "26c4",
    "1f916",
    "1f47b",
)
SHARES = {"single": 0.25, "count": 0.25, "pair": 0.35, "many": 0.15}


@dataclass(frozen=True, slots=True)
class Scene:
    """``things`` in the order of the caption; ``relation`` is that of the first two (-1: they simply stand together)."""

    kind: str
    things: tuple[Thing, ...]
    relation: int = -1
    ground: int = -1
    ground_colour: int = -1
    style: int = -1

    @property
    def pair(self) -> bool:
        """Whether two things are there, one of each, in a relation or together."""
        return len(self.things) == 2 and all(thing.count == 1 for thing in self.things)


def held_out(relation: int, a: str, b: str) -> bool:
    """Whether a triple is kept for testing: a tenth of all, decided by its names alone."""
    return _share(f"triple {relation} {a} {b}") < 0.10


def only_composed(emoji: str) -> bool:
    """Whether a thing of the grammar is never shown alone: a twentieth, decided by its name alone."""
    return _share(f"thing {emoji}") < 0.05


def _share(name: str) -> float:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32


class Scenes:
    """Draws scenes of things that have pictures. ``styles``: drawing styles that a caption may name, by index.

    ``all_alone``: what is kept for compositions stands alone, too (for words, which the vocabulary shall know in every place).
    """

    def __init__(self, drawn: Sequence[str], styles: Sequence[str], all_alone: bool = False) -> None:
        self.nouns = [i for i, emoji in enumerate(EMOJI) if emoji in set(drawn)]
        kept = [i for i in self.nouns if not only_composed(EMOJI[i])]
        self.alone = self.nouns if all_alone or not kept else kept
        self.holders, self.worn, self.wearers = (self._rows(names) for names in (HOLDERS, WORN, WEARERS))
        self.styles = [i for i, style in enumerate(styles) if style in STYLE_WORDS["en"]]

    def draw(self, rng: random.Random) -> Scene:
        """One scene, never a held-out triple."""
        kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
        style = rng.choice(self.styles) if self.styles and rng.random() < 0.25 else -1
        ground, colour = self._ground(rng, 0.5 if kind == "many" else 0.15)
        if kind == "single":
            return Scene(kind, (self._dressed(rng, rng.choice(self.alone), 0.8, 0.35),), -1, ground, colour, style)
        if kind == "count":
            thing = self._dressed(rng, rng.choice(self.alone), 0.3, 0.0)
            return Scene(kind, (replace(thing, count=rng.randint(2, 5)),), -1, ground, colour, style)
        if kind == "many" and ground < 0:
            nouns = rng.sample(self.nouns, 3)
            return Scene(kind, tuple(self._dressed(rng, noun, 0.3, 0.1) for noun in nouns), -1, -1, -1, style)
        relation, a, b = self._pair(rng)
        things = tuple(self._dressed(rng, noun, 0.35, 0.15) for noun in (a, b))
        return Scene(kind, things, relation, ground, colour, style)

    def parts(self, relation: int) -> tuple[list[int], list[int]]:
        """Which things may stand first and second in a relation."""
        firsts = self.wearers if relation == WEARING else self.nouns
        return firsts, self.holders if relation == INSIDE else self.worn if relation == WEARING else self.nouns

    def _pair(self, rng: random.Random) -> tuple[int, int, int]:
        while True:
            relation = -1 if rng.random() < 0.2 else rng.randrange(9)
            firsts, seconds = self.parts(relation)
            a, b = rng.choice(firsts), rng.choice(seconds)
            if a != b and (relation < 0 or not held_out(relation, EMOJI[a], EMOJI[b])):
                return relation, a, b

    def _dressed(self, rng: random.Random, noun: int, colour: float, size: float) -> Thing:
        said = rng.randrange(len(COLOURS["en"])) if rng.random() < colour else -1
        return Thing(noun, said, rng.randrange(2) if rng.random() < size else -1)

    def _ground(self, rng: random.Random, share: float) -> tuple[int, int]:
        if rng.random() >= share:
            return -1, -1
        ground = rng.randrange(len(GROUNDS["en"]))
        return ground, rng.randrange(len(COLOURS["en"])) if ground == 0 else -1

    def _rows(self, names: Sequence[str]) -> list[int]:
        return [row for row in self.nouns if EMOJI[row] in names]


def say(scene: Scene, locale: str, styles: Sequence[str], rng: random.Random, others: float = 0.0) -> str:
    """The scene in words; everything that decides the picture is said. others: the share of captions in other words than the
    grammar's own (``wordings``), where it knows some."""
    speaker = language(locale)
    other = others > 0 and rng.random() < others
    if other and scene.pair:
        text = speaker.phrased(rng.choice(WORDINGS[locale][scene.relation]), *scene.things)
    else:
        together = scene.relation < 0
        text = speaker.together(scene.things) if together else speaker.relation(scene.relation, *scene.things)
    if other and locale == "en" and rng.random() < 0.5:
        text = articles(text, rng)
    if scene.ground >= 0:
        text = speaker.on_ground(text, scene.ground, scene.ground_colour)
    if scene.style >= 0:
        words = STYLE_WORDS[locale][styles[scene.style]]
        text = rng.choice(STYLED_FRAMES).format(name=text, style=rng.choice(words))
    return text


def columns_of(scenes: Sequence[Scene]) -> dict[str, npt.NDArray[np.int8]]:
    """The columns of the table that say what scenes show."""
    columns = {name: np.full((len(scenes), THINGS), -1, np.int8) for name in ("noun", "colour", "size")}
    for row, scene in enumerate(scenes):
        things = [replace(t, count=1) for t in scene.things for _ in range(t.count)]
        for place, thing in enumerate(things):
            for name in ("noun", "colour", "size"):
                columns[name][row, place] = getattr(thing, name)
    for name in ("relation", "ground", "ground_colour", "style"):
        columns[name] = np.array([getattr(scene, name) for scene in scenes], np.int8)
    return columns


def write_scenes(
    path: Path,
    count: int,
    seed: int,
    drawn: Sequence[str],
    styles: Sequence[str],
    encode: Callable[[str], Sequence[int]],
    languages: int = 3,
    others: float = 0.0,
) -> None:
    """``count`` scenes, each in ``languages`` of the main languages in turn, English and Russian twice as often.

    others: the share of captions in other words than the grammar's own (``say``).

    ``drawn``: emoji (hexadecimal) that have pictures; ``encode``: text to token ids. The same arguments give the same bytes.
    """
    source, rng = Scenes(drawn, styles), random.Random(f"scenes {seed}")
    wheel = [*MAIN_LOCALES, "en", "ru"]
    scenes = [source.draw(rng) for _ in range(count)]
    columns: dict[str, npt.NDArray[Any]] = dict(columns_of(scenes))
    ids: list[int] = []
    offsets, owner, spoken = [0], [], []
    for row, scene in enumerate(scenes):
        for turn in range(languages):
            locale = wheel[(row * languages + turn) % len(wheel)]
            ids += encode(say(scene, locale, styles, rng, others))
            offsets.append(len(ids))
            owner.append(row)
            spoken.append(MAIN_LOCALES.index(locale))
    columns |= {
        "ids": np.array(ids, np.int32),
        "offsets": np.array(offsets, np.int64),
        "scene": np.array(owner, np.int32),
        "locale": np.array(spoken, np.int8),
    }
    metadata = {
        "emoji": json.dumps(EMOJI),
        "locales": json.dumps(MAIN_LOCALES),
        "styles": json.dumps(list(styles)),
        "relations": json.dumps(len(RELATIONS["en"])),
        "seed": str(seed),
        "others": str(others),
    }
    write_tensors(path, columns, metadata, "the table of scenes")


def write_held_out(path: Path) -> int:
    """List what no composed scene shows, a line each: things that never stand alone, and triples. Returns the number of lines."""
    source, names = Scenes(EMOJI, ()), [forms[0] for forms in NOUNS["en"]]
    lines = [f"{EMOJI[row]}\t\t{names[row]} alone" for row in source.nouns if only_composed(EMOJI[row])]
    for relation, phrase in enumerate(RELATIONS["en"]):
        firsts, seconds = source.parts(relation)
        pairs = ((a, b) for a in firsts for b in seconds if a != b and held_out(relation, EMOJI[a], EMOJI[b]))
        lines += [f"{EMOJI[a]}\t{EMOJI[b]}\t{phrase.format(a=names[a], b=names[b])}" for a, b in pairs]
    try:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise FileError(f"{path}: cannot write what is held out ({error.strerror or error})") from error
    return len(lines)
