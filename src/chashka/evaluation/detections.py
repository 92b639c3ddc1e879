"""From the judge's maps to things: label, score, box and mask of everything that it sees in a picture.

Boxes are (x0, y0, x1, y1) in shares of the picture, y downwards.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Float: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]
Box: TypeAlias = tuple[float, float, float, float]

MOST = 16
"""At most so many things of a picture (GenEval: 16 of a class)."""
SAME = 0.6
"""Boxes that share more than this are one thing; the higher score says what it is."""


@dataclass(frozen=True, slots=True)
class Maps:
    """What the network says of one picture, as probabilities and shares; see :func:`maps_of`.

    heat (C + 1, G, G) in [0, 1], the chance of a thing of each class with its centre there; box (4, G, G); mask
    (3, G, G), its first plane in [0, 1].
    """

    heat: Float
    box: Float
    mask: Float


def maps_of(seen: Mapping[str, Float]) -> list[Maps]:
    """What the network says of pictures (``nets.judge.Seen``, by name) as chances, picture by picture."""
    chances = np.exp(seen["kind"] - seen["kind"].max(1, keepdims=True))
    heat = _sigmoid(seen["centre"]) * chances / chances.sum(1, keepdims=True)
    mask = np.concatenate([_sigmoid(seen["mask"][:, :1]), seen["mask"][:, 1:]], 1)
    return [Maps(*maps) for maps in zip(heat, seen["box"], mask, strict=True)]


def _sigmoid(logits: Float) -> Float:
    values: Float = (0.5 + 0.5 * np.tanh(0.5 * logits)).astype(np.float32)
    return values


@dataclass(frozen=True, slots=True)
class Found:
    """One thing: ``label`` is a class's number; ``mask`` (G, G) is where it is seen."""

    label: int
    score: float
    box: Box
    mask: Mask

    @property
    def centre(self) -> tuple[float, float]:
        """x and y."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


def detections(maps: Maps, threshold: float, among: Collection[int] | None = None) -> list[Found]:
    """The things whose score is above ``threshold``, the surest first; what is none of the classes is left out.

    A rejected thing takes its place all the same: nothing else is found where the judge is surer of none. among: only these
    labels are looked for, as GenEval's detector offers a thing under every label that it thinks likely, not the likeliest alone.
    """
    classes = len(maps.heat) - 1
    chosen: list[tuple[int, float, Box]] = []
    for label, y, x in _peaks(maps.heat, threshold):
        if among is not None and label != classes and label not in among:
            continue
        score, box = float(maps.heat[label, y, x]), _box(maps.box, y, x)
        if all(overlap(box, other) <= SAME for _, _, other in chosen):
            chosen.append((label, score, box))
        if len(chosen) == MOST:
            break
    masks = _masks(maps.mask, [box for _, _, box in chosen])
    return [
        Found(label, score, box, mask)
        for (label, score, box), mask in zip(chosen, masks, strict=True)
        if label < classes
    ]


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    both = width * height
    union = area(a) + area(b) - both
    return both / union if union > 0 else 0.0


def area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def components(covered: Mask, smallest: float = 0.15) -> int:
    """How many connected parts (8 neighbours) a mask (H, W) has, without those below ``smallest`` of the largest one."""
    sizes, left = [], covered.copy()
    while left.any():
        row, column = divmod(int(left.argmax()), left.shape[1])
        size, waiting = 0, [(row, column)]
        left[row, column] = False
        while waiting:
            y, x = waiting.pop()
            size += 1
            y0, x0 = max(y - 1, 0), max(x - 1, 0)
            near = np.argwhere(left[y0 : y + 2, x0 : x + 2])
            left[y0 : y + 2, x0 : x + 2] = False
            waiting += [(y0 + int(dy), x0 + int(dx)) for dy, dx in near]
        sizes.append(size)
    return sum(size >= smallest * max(sizes) for size in sizes)


def _peaks(heat: Float, threshold: float) -> list[tuple[int, int, int]]:
    """(label, row, column) of the places that are the highest among their neighbours, the highest first."""
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-1.0)
    side = heat.shape[1]
    around = [padded[:, dy : dy + side, dx : dx + side] for dy in range(3) for dx in range(3)]
    places = np.argwhere((heat >= np.maximum.reduce(around)) & (heat > threshold))
    order = np.argsort(-heat[tuple(places.T)], kind="stable")
    return [(int(label), int(y), int(x)) for label, y, x in places[order]]


def _box(box: Float, y: int, x: int) -> Box:
    side = box.shape[1]
    dx, dy, width, height = (float(v) for v in box[:, y, x])
    cx, cy = (x + 0.5) / side + dx, (y + 0.5) / side + dy
    half_width, half_height = max(width, 1e-3) / 2, max(height, 1e-3) / 2
    return cx - half_width, cy - half_height, cx + half_width, cy + half_height


def _masks(mask: Float, boxes: list[Box]) -> list[Mask]:
    """Every covered place goes to the thing whose centre it points to, if it lies inside that thing's box (a little wider)."""
    if not boxes:
        return []
    side = mask.shape[1]
    middle = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(middle, middle)
    centres = np.array([((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in boxes], np.float32)
    away = np.square(x + mask[1] - centres[:, :1, None]) + np.square(y + mask[2] - centres[:, 1:, None])
    owner, covered, slack = away.argmin(0), mask[0] > 0.5, 0.5 / side
    found = []
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        inside = (x > x0 - slack) & (x < x1 + slack) & (y > y0 - slack) & (y < y1 + slack)
        found.append(covered & (owner == i) & inside)
    return found
