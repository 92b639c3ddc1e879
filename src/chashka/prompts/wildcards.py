"""Prompts with choices: ``{a|b|c}``, ``{2$$a|b|c}``, ``{1-$$a|b}``, ``{0.3::a|b}`` and ``__name__``, one of the lines of a file or,
with ``*`` in the name, of several.

The rules are those of dynamic-prompts (adieyal/sd-dynamic-prompts, "Syntax"). At random: the seed decides, and the same seed
decides the same. Combinatorial: every combination in turn, of a prompt and its negative prompt together.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from chashka.errors import FileError, InputError
from chashka.prompts import nesting

MOST = 100_000
"""Combinations that are counted at most."""
MOST_TAKEN = 1000
"""Of one choice: no prompt has room for more."""
LONGEST_NUMBER = 20
"""Digits of a count or a weight: a weight of very many is infinite, and chance cannot weigh that."""
NAME = re.compile(r"__([\w/*-]+?)__")
COUNT = re.compile(
    r"\s*(?:(?P<low>\d+)\s*(?:(?P<to>-)\s*(?P<high>\d+)?)?|-\s*(?P<most>\d+))\s*\$\$(?:(?P<joint>[^|${}]*)\$\$)?"
)
"""How many are taken: ``2$$``, ``1-2$$``, ``2-$$``, ``-2$$``; and what joins them, if anything is said."""
WEIGHT = re.compile(r"\s*(\d*\.?\d+)::")


@dataclass(frozen=True, slots=True)
class Choice:
    """``low`` to ``high`` (None: all) of ``options`` with their weights, joined by ``joint``."""

    options: tuple[tuple[float, tuple[Node, ...]], ...]
    low: int = 1
    high: int | None = 1
    joint: str = ", "

    def bounds(self, there: int) -> tuple[int, int]:
        """How many are taken of so many, the fewest and the most."""
        fewest, most = sorted((self.low, there if self.high is None else self.high))
        return min(fewest, there, MOST_TAKEN), min(most, there, MOST_TAKEN)


@dataclass(frozen=True, slots=True)
class File:
    """One of the lines of a wildcard file, or of all whose names fit one with ``*``."""

    name: str


Node: TypeAlias = "str | Choice | File"
Files: TypeAlias = Mapping[str, Sequence[str]]
"""Lines by the file's name, without its suffix."""


def resolved(prompt: str, seed: int, files: Files | None = None) -> str:
    """One prompt of all that are possible, the one of ``seed``.

    Raises InputError for a name that no file has, and for choices and files that are nested too deep (``nesting``).
    """
    return "".join(_drawn(_parse(prompt), random.Random(seed), files or {}, 0))


def combinations(texts: Sequence[str], files: Files | None = None, most: int = MOST) -> Iterator[tuple[str, ...]]:
    """Every possible form of some texts together, the last text's last choice changing fastest.

    Raises InputError for more than ``most``, and as ``resolved``.
    """
    forms = (list(islice(_all(_parse(text), files or {}, 0, most + 1), most + 1)) for text in texts)
    for number, parts in enumerate(itertools.product(*forms)):
        if number >= most:
            raise InputError(
                f"prompt: more than {most} combinations; allowed: at most {most}; take out some of the choices, those of a "
                "negative prompt among them, or let them be made at random"
            )
        yield parts


def files_in(folder: Path | None) -> dict[str, list[str]]:
    """Lines by name of the .txt files in ``folder``; empty lines and those that begin with # are left out. Raises FileError."""
    if folder is None:
        return {}
    found = {}
    for file in sorted(folder.rglob("*.txt")):
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"cannot read {str(file)!r}: {error}") from error
        name = file.relative_to(folder).with_suffix("").as_posix()
        found[name] = [line for line in lines if line and not line.startswith("#")]
    return found


def has_choices(prompt: str) -> bool:
    """Whether a prompt leaves anything to choose."""
    return any(not isinstance(node, str) for node in _parse(prompt))


def _parse(text: str) -> tuple[Node, ...]:
    nodes, end = _sequence(text, 0, "", 0)
    if end < len(text):
        raise InputError(f"prompt: {text[end : end + 20]!r} closes what was not opened; allowed: as many {{ as }}")
    return nodes


def _sequence(text: str, place: int, stop: str, depth: int) -> tuple[tuple[Node, ...], int]:
    nodes: list[Node] = []
    while place < len(text):
        letter = text[place]
        if letter in stop:
            break
        if letter == "{":
            choice, place = _choice(text, place, depth + 1)
            nodes.append(choice)
            continue
        if letter == "}" and not stop:
            break
        name = NAME.match(text, place)
        if name is not None:
            nodes.append(File(name.group(1)))
            place = name.end()
            continue
        if nodes and isinstance(nodes[-1], str):
            nodes[-1] += letter
        else:
            nodes.append(letter)
        place += 1
    return tuple(nodes), place


def _choice(text: str, place: int, depth: int) -> tuple[Choice, int]:
    nesting.check(depth, "choices in { }")
    begin = place
    place += 1
    count = COUNT.match(text, place)
    if count is not None:
        place = count.end()
    options: list[tuple[float, tuple[Node, ...]]] = []
    while True:
        weight = WEIGHT.match(text, place)
        if weight is not None:
            place = weight.end()
        nodes, place = _sequence(text, place, "|}", depth)
        options.append((1.0 if weight is None else float(_short(weight.group(1))), nodes))
        if place >= len(text):
            raise InputError(f"prompt: {text[begin : begin + 20]!r} is never closed; allowed: as many {{ as }}")
        place += 1
        if text[place - 1] == "}":
            break
    return (Choice(tuple(options)) if count is None else _counted(tuple(options), count)), place


def _counted(options: tuple[tuple[float, tuple[Node, ...]], ...], count: re.Match[str]) -> Choice:
    low, to, most = int(_short(count["low"] or "1")), count["to"], count["high"] or count["most"]
    high = int(_short(most)) if most else (None if to else low)
    return Choice(options, low, high, count["joint"] or ", ")


def _short(number: str) -> str:
    """The digits of a number that can be counted with."""
    if len(number) > LONGEST_NUMBER + number.count("."):
        raise InputError(f"prompt: {number[:20]!r}… is too long a number; allowed: at most {LONGEST_NUMBER} digits")
    return number


def _drawn(nodes: Sequence[Node], chance: random.Random, files: Files, depth: int) -> Iterator[str]:
    _check(depth)
    for node in nodes:
        if isinstance(node, str):
            yield node
        elif isinstance(node, File):
            yield from _drawn(_parse(chance.choice(_lines(node.name, files))), chance, files, depth + 1)
        else:
            yield node.joint.join(_taken(node, chance, files, depth))


def _taken(node: Choice, chance: random.Random, files: Files, depth: int) -> Iterator[str]:
    lines = _of_one_file(node, files)
    if lines is not None:
        for line in chance.sample(lines, chance.randint(*node.bounds(len(lines)))):
            yield "".join(_drawn(_parse(line), chance, files, depth + 2))
        return
    left = list(node.options)
    for _ in range(chance.randint(*node.bounds(len(left)))):
        weights = [weight for weight, _ in left]
        i = chance.choices(range(len(left)), weights)[0] if sum(weights) > 0 else chance.randrange(len(left))
        yield "".join(_drawn(left.pop(i)[1], chance, files, depth + 1))


def _all(nodes: Sequence[Node], files: Files, depth: int, enough: int) -> Iterator[str]:
    """enough: so many of each part are made at most: none of them is ever fewer than one, so the whole has as many too."""
    _check(depth)
    return map("".join, itertools.product(*(list(islice(_of(node, files, depth, enough), enough)) for node in nodes)))


def _of(node: Node, files: Files, depth: int, enough: int) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, File):
        for line in _lines(node.name, files):
            yield from _all(_parse(line), files, depth + 1, enough)
    else:
        lines = _of_one_file(node, files)
        there = [option for _, option in node.options] if lines is None else [_parse(line) for line in lines]
        deeper = depth + (1 if lines is None else 2)
        options = [list(islice(_all(option, files, deeper, enough), enough)) for option in there]
        fewest, most = node.bounds(len(options))
        for size in range(fewest, most + 1):
            for taken in itertools.combinations(options, size):
                yield from map(node.joint.join, itertools.product(*taken))


def _of_one_file(node: Choice, files: Files) -> Sequence[str] | None:
    """The lines that ``{2$$__name__}`` takes several of, so that none comes twice; None for every other choice."""
    only = node.options[0][1]
    if node.high == 1 or len(node.options) > 1 or len(only) != 1 or not isinstance(only[0], File):
        return None
    return _lines(only[0].name, files)


def _lines(name: str, files: Files) -> Sequence[str]:
    """Those of all files that fit, each once; a name that fits none is looked for in every folder. ``*`` fits ``/`` too."""
    found = list(files.get(name, ()))
    for pattern in (name, f"**/{name}"):
        found = found or [line for known, lines in files.items() if fnmatchcase(known, pattern) for line in lines]
    if not found:
        known = ", ".join(sorted(files)[:8]) or "none"
        raise InputError(f"prompt: there is no wildcard file {name!r}; there are: {known}")
    return list(dict.fromkeys(found))


def _check(depth: int) -> None:
    nesting.check(depth, "choices and wildcard files")
