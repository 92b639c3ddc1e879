"""Prompts that change while a picture is drawn: ``[a:b:0.5]``, ``[a::0.5]``, ``[b:0.5]`` and ``[a|b]``.

Rules of AUTOMATIC1111's web UI since its version 1.6 (wiki, "Features: Prompt editing" and "Alternating words";
``prompt_parser.py``, ``get_learned_conditioning_prompt_schedules``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from chashka.prompts import nesting
from chashka.prompts.numbers import MOST_STEP, within

NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*")


@dataclass(frozen=True, slots=True)
class Change:
    """``before`` until ``when``, then ``after``. when: a step, or if ``share`` a share of the first pass's steps, beyond 1 of the
    second one's."""

    before: tuple[Node, ...]
    after: tuple[Node, ...]
    when: float
    share: bool

    def last(self, steps: int, passed: int | None) -> int:
        """The last step of ``before``, below 1 if there is none; see :func:`by_step`. The original truncates."""
        if self.share:
            return int((self.when - (0 if passed is None else 1)) * steps)
        return int(self.when - (passed or 0))


@dataclass(frozen=True, slots=True)
class Turns:
    """One of ``options`` in each step, in turn."""

    options: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True, slots=True)
class Bracket:
    """Brackets that schedule nothing: ``(a:1.2)`` or ``[a]`` with what is in them. tail: what stands between content and end."""

    opening: str
    content: tuple[Node, ...]
    tail: str


Node: TypeAlias = "str | Change | Turns | Bracket"


def by_step(prompt: str, steps: int, passed: int | None = None) -> list[str]:
    """The prompt of each of ``steps`` steps, its weights still in it. Raises InputError as :func:`check`.

    passed: steps of the first pass, in a second one, where changes go on: steps are counted on, and shares are its own from 1 to
    2. None: this is the first.
    """
    nodes = _parse(prompt)
    return ["".join(_said(nodes, step, steps, passed)) for step in range(1, steps + 1)]


def check(prompt: str) -> None:
    """Raises InputError for brackets that are nested too deep (``nesting``), those that are never closed among them, and for a
    step that no run has (``numbers``)."""
    _parse(prompt)


def runs(texts: Sequence[str]) -> list[tuple[int, str]]:
    """(first step, text) of every stretch of equal texts."""
    return [(i, text) for i, text in enumerate(texts) if i == 0 or texts[i - 1] != text]


def _parse(prompt: str) -> tuple[Node, ...]:
    """At this depth nothing closes, so that a lone bracket is a letter and all of the prompt is read."""
    return _Reader(prompt).sequence(0, "", 0)[0]


class _Reader:
    """Reads one prompt. What a bracket is depends on its place alone, and is found once: a bracket that is never closed is a
    letter, and what stands behind it is read again."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._known: dict[int, tuple[Node, int] | None] = {}

    def sequence(self, place: int, stop: str, depth: int) -> tuple[tuple[Node, ...], int]:
        """Nodes until one of the letters in ``stop`` at this depth, or the end; and where that is."""
        text = self._text
        nodes: list[Node] = []
        letters: list[str] = []
        while place < len(text):
            letter = text[place]
            if letter == "\\" and place + 1 < len(text):
                letters.append(text[place : place + 2])
                place += 2
                continue
            if letter in stop:
                break
            if letter in "([":
                found = self._bracket(place, depth + 1)
                if found is not None:
                    nodes += ["".join(letters), found[0]]
                    letters = []
                    place = found[1]
                    continue
            letters.append(letter)
            place += 1
        nodes.append("".join(letters))
        return tuple(node for node in nodes if node != ""), place

    def _bracket(self, place: int, depth: int) -> tuple[Node, int] | None:
        """The node that begins with the bracket at ``place`` and where it ends; None where it is never closed."""
        if place not in self._known:
            self._known[place] = self._read(place, depth)
        return self._known[place]

    def _read(self, place: int, depth: int) -> tuple[Node, int] | None:
        nesting.check(depth, hint=r", or write \( for a bracket that is a letter")
        text = self._text
        opening = text[place]
        closing = ")" if opening == "(" else "]"
        parts: list[tuple[Node, ...]] = []
        marks: list[str] = []
        end = place + 1
        while True:
            nodes, end = self.sequence(end, closing + (":|" if opening == "[" else ""), depth)
            parts.append(nodes)
            if end >= len(text):
                return None
            marks.append(text[end])
            end += 1
            if marks[-1] == closing:
                break
        return (_node(opening, parts, marks[:-1]), end)


def _node(opening: str, parts: list[tuple[Node, ...]], marks: list[str]) -> Node:
    last = parts[-1]
    number = last[0] if len(last) == 1 and isinstance(last[0], str) and NUMBER.fullmatch(last[0]) else None
    if opening == "[" and number is not None and marks[-1:] == [":"] and marks.count(":") <= 2:
        groups: list[tuple[Node, ...]] = [parts[0]]
        for mark, part in zip(marks[:-1], parts[1:-1], strict=True):
            # a bar is a letter here
            groups = [*groups, part] if mark == ":" else [*groups[:-1], (*groups[-1], mark, *part)]
        when = within(float(number), MOST_STEP, "a change at step", "; with a point it is a share of the steps")
        return Change(groups[0] if len(groups) == 2 else (), groups[-1], when, "." in number)
    if opening == "[" and marks and set(marks) == {"|"}:
        return Turns(tuple(parts))
    # anything else is what it looks like
    whole: list[Node] = []
    for i, part in enumerate(parts):
        whole += [*part, *([marks[i]] if i < len(marks) else [])]
    return Bracket(opening, tuple(whole), ")" if opening == "(" else "]")


def _said(nodes: Sequence[Node], step: int, steps: int, passed: int | None) -> list[str]:
    """The text of a step, counted from 1."""
    said: list[str] = []
    for node in nodes:
        if isinstance(node, str):
            said.append(node)
        elif isinstance(node, Change):
            said += _said(node.before if step <= node.last(steps, passed) else node.after, step, steps, passed)
        elif isinstance(node, Turns):
            said += _said(node.options[(step - 1) % len(node.options)], step, steps, passed)
        else:
            said += [node.opening, *_said(node.content, step, steps, passed), node.tail]
    return said
