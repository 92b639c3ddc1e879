"""The prompts of the composition test: seven tasks, drawn once by a seed from the grammar, never changed.

200 of them are for tuning (``dev``), 600 others for reports. Half of those that name a relation ask for triples (relation, a,
b) that no composed scene of the training ever shows (``data.scenes.held_out``).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from chashka.data.composed_words import COLOURS, EMOJI, SPACE
from chashka.data.grammar import Thing
from chashka.data.scenes import HOLDERS, Scene, held_out, only_composed, say
from chashka.evaluation.scene_checks import ABOVE, INSIDE, LEFT, ON, RIGHT, UNDER, Asked, Wanted

Which: TypeAlias = Literal["dev", "report"]

# task → prompts for tuning, prompts for reports
COUNTS: dict[str, tuple[int, int]] = {
    "single": (17, 80),
    "two": (31, 90),
    "counting": (30, 80),
    "colours": (30, 90),
    "position": (32, 90),
    "attribution": (30, 90),
    "placing": (30, 80),
}
TASKS = tuple(COUNTS)
PROMPTS = sum(map(sum, COUNTS.values()))
"""How many there are, for both uses."""
POSITIONS = (LEFT, RIGHT, ABOVE)
PLACES = (INSIDE, ON, UNDER)
_NOUNS = [row for row, emoji in enumerate(EMOJI) if emoji != "-" and row != SPACE]
_HOLDERS = [row for row in _NOUNS if EMOJI[row] in HOLDERS]


@dataclass(frozen=True, slots=True)
class ScenePrompt:
    """Prompt ``number`` (its seed too) of a task. ``scene``: what it says.

    ``triple``: 'seen' or 'unseen' where it names a relation, else ''. ``composed``: it names a thing that the grammar
    keeps for compositions (``data.scenes.only_composed``).
    """

    number: int
    task: str
    scene: Scene
    triple: str
    composed: bool

    def text(self, locale: str, reworded: bool = False) -> str:
        """The prompt in one of the grammar's languages; reworded: in other words than the grammar's own, where it knows some."""
        return say(self.scene, locale, (), random.Random(self.number if reworded else 0), float(reworded))

    @property
    def asked(self) -> Asked:
        """What a judge checks."""
        things = tuple(Wanted(t.noun, t.colour, t.count) for t in self.scene.things)
        return Asked(things, self.scene.relation, self.task == "counting")


def scene_prompts(which: Which, limit: int | None = None) -> list[ScenePrompt]:
    """The prompts for tuning (numbers 0 to 199) or for reports (200 to 799); ``limit``: at most so many, of every task alike."""
    chosen = _PROMPTS[:_DEV] if which == "dev" else _PROMPTS[_DEV:]
    if limit is None or limit >= len(chosen):
        return chosen
    by_task = [[p for p in chosen if p.task == task] for task in TASKS]
    share = [[rows[i] for rows in by_task if i < len(rows)] for i in range(max(map(len, by_task)))]
    return sorted([p for turn in share for p in turn][: max(limit, 1)], key=lambda p: p.number)


def _pair(rng: random.Random, relations: Sequence[int], unseen: bool) -> Scene:
    while True:
        relation = rng.choice(relations)
        a, b = rng.choice(_NOUNS), rng.choice(_HOLDERS if relation == INSIDE else _NOUNS)
        if a != b and held_out(relation, EMOJI[a], EMOJI[b]) == unseen:
            return Scene("pair", (Thing(a), Thing(b)), relation)


def _drawer(task: str, rng: random.Random) -> Callable[[], Scene]:
    """How a scene of a task is drawn."""
    colours = range(len(COLOURS["en"]))

    def two(*said: int) -> Scene:
        a, b = rng.sample(_NOUNS, 2)
        return Scene("pair", (Thing(a, said[0]), Thing(b, said[1])))

    match task:
        case "single":
            return lambda: Scene("single", (Thing(rng.choice(_NOUNS)),))
        case "counting":
            return lambda: Scene("count", (Thing(rng.choice(_NOUNS), count=rng.randint(2, 4)),))
        case "colours":
            return lambda: Scene("single", (Thing(rng.choice(_NOUNS), rng.choice(colours)),))
        case "attribution":
            return lambda: two(*rng.sample(colours, 2))
        case "position":
            return lambda: _pair(rng, POSITIONS, rng.random() < 0.5)
        case "placing":
            return lambda: _pair(rng, PLACES, rng.random() < 0.5)
    return lambda: two(-1, -1)


def _drawn() -> list[ScenePrompt]:
    rng, known = random.Random("evaluation scenes"), set[Scene]()
    found: list[list[ScenePrompt]] = [[], []]
    for task, counts in COUNTS.items():
        draw = _drawer(task, rng)
        for side, count in enumerate(counts):
            for _ in range(count):
                scene = draw()
                while scene in known:
                    scene = draw()
                known.add(scene)
                number = len(found[side]) + side * sum(dev for dev, _ in COUNTS.values())
                found[side].append(_prompt(number, task, scene))
    return found[0] + found[1]


def _prompt(number: int, task: str, scene: Scene) -> ScenePrompt:
    names = [EMOJI[thing.noun] for thing in scene.things]
    triple = "" if scene.relation < 0 else "unseen" if held_out(scene.relation, names[0], names[1]) else "seen"
    return ScenePrompt(number, task, scene, triple, any(map(only_composed, names)))


_DEV = sum(dev for dev, _ in COUNTS.values())
_PROMPTS = _drawn()
