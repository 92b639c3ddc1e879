"""Whether a picture shows the scene that was asked for: GenEval's rules (arXiv 2310.11513) over what a judge has found.

Things are rows of ``data/nouns.tsv``, colours and relations indices of ``composed_words``; only the surest detections of a
label are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chashka.evaluation.colours import colour_of
from chashka.evaluation.detections import Box, Float, Found, Maps, Mask, area, components, detections

INSIDE, ON, UNDER, LEFT, RIGHT, BESIDE, BEHIND, ABOVE, WEARING = range(9)
"""The relations of ``composed_words.RELATIONS``."""
REDUCED = 0.1
"""GenEval: a centre's offset is reduced by this share of both sizes."""
COMPONENT = 0.5
"""GenEval: a direction holds where its component of the reduced offset is above this share of the whole offset."""
TOUCH = 0.1
"""What stands on another is at most this share of both heights away from it."""
WITHIN = 0.25
"""What is inside another shares at least so much of its visible box with it."""
OPAQUE = 0.95
"""Pictures that are opaque in more than this share have a drawn ground; alpha says nothing of their things."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing of a caption: a label, the colour that is said (-1: none), how many."""

    label: int
    colour: int = -1
    count: int = 1


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caption says. ``relation`` is that of the first two things (-1: none); ``exact``: counts must be exact."""

    things: tuple[Wanted, ...]
    relation: int = -1
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """What holds: all things are ``found`` in their numbers, have their colours, stand as asked; ``correct``: all of these."""

    found: bool
    coloured: bool
    placed: bool

    @property
    def correct(self) -> bool:
        return self.found and self.coloured and self.placed


def judged(asked: Asked, maps: Maps, usual: float, strict: float, network: Float) -> Checked:
    """Check one picture, (4, H, W) premultiplied in [-1, 1], by what a judge says of it, with its two thresholds."""
    labels = {wanted.label for wanted in asked.things}
    seen, sure = (detections(maps, threshold, labels) for threshold in (usual, strict))
    return check(asked, seen, sure, network, maps.mask[0] > 0.5)


def check(asked: Asked, seen: Sequence[Found], sure: Sequence[Found], network: Float, covered: Mask) -> Checked:
    """Check one picture, (4, H, W) premultiplied in [-1, 1].

    ``seen`` and ``sure``: detections above the usual and above the strict threshold, the surest first. ``covered`` (G, G):
    where the judge sees things at all.
    """
    places = [[f for f in seen if f.label == wanted.label][: wanted.count] for wanted in asked.things]
    found = all(len(own) == wanted.count for own, wanted in zip(places, asked.things, strict=True))
    if asked.exact:
        found = found and all(counted(wanted, sure, network, covered) for wanted in asked.things)
    coloured = found and all(
        wanted.colour < 0 or all(colour_of(network, at_size(f.mask, network.shape[-1])) == wanted.colour for f in own)
        for own, wanted in zip(places, asked.things, strict=True)
    )
    placed = found and (asked.relation < 0 or related(asked.relation, places[0][0].box, places[1][0].box))
    return Checked(found, coloured, placed)


def counted(wanted: Wanted, sure: Sequence[Found], network: Float, covered: Mask) -> bool:
    """n of them and not n + 1, and as many separate parts in the picture."""
    return sum(f.label == wanted.label for f in sure) == wanted.count == components(outline(network, covered))


def outline(network: Float, covered: Mask) -> Mask:
    """Where things are, (64, 64): by alpha, or by the judge's own map where the picture has a ground."""
    opaque = network[3] >= 0.0
    if opaque.mean() > OPAQUE:
        return at_size(covered, 64)
    factor = opaque.shape[-1] // 64
    cells: Mask = opaque.reshape(64, factor, 64, factor).mean((1, 3)) > 0.5
    return cells


def at_size(mask: Mask, side: int) -> Mask:
    """(G, G) → (side, side), a multiple of G."""
    factor = side // mask.shape[-1]
    return np.repeat(np.repeat(mask, factor, 0), factor, 1)


def related(relation: int, a: Box, b: Box) -> bool:
    """Whether box ``a`` stands in a relation to box ``b``. Beside is left or right; behind and wearing only overlap."""
    said = directions(a, b)
    if relation == BESIDE:
        return bool(said & {LEFT, RIGHT})
    if relation in (LEFT, RIGHT, ABOVE, UNDER):
        return relation in said
    if relation == ON:
        gap = abs(b[1] - a[3]) <= TOUCH * (a[3] - a[1] + b[3] - b[1])
        return ABOVE in said and gap and shared_width(a, b) >= 0.5 * min(a[2] - a[0], b[2] - b[0])
    both = shared(a, b)
    if relation == INSIDE:
        return b[0] < (a[0] + a[2]) / 2 < b[2] and b[1] < a[3] <= b[3] and both >= WITHIN * area(a)
    return both > 0


def directions(a: Box, b: Box) -> set[int]:
    """Where ``a`` is, seen from ``b``: any of LEFT, RIGHT, ABOVE and UNDER (GenEval's rule: see the constants)."""
    offset = [(a[i] + a[i + 2] - b[i] - b[i + 2]) / 2 for i in (0, 1)]
    sizes = [a[i + 2] - a[i] + b[i + 2] - b[i] for i in (0, 1)]
    whole = math.hypot(*offset)
    if whole == 0:
        return set()
    dx, dy = (
        math.copysign(max(abs(o) - REDUCED * size, 0.0), o) / whole for o, size in zip(offset, sizes, strict=True)
    )
    held = {LEFT: -dx, RIGHT: dx, ABOVE: -dy, UNDER: dy}
    return {relation for relation, component in held.items() if component > COMPONENT}


def shared_width(a: Box, b: Box) -> float:
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)


def shared(a: Box, b: Box) -> float:
    """The area that two boxes have in common."""
    return shared_width(a, b) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
