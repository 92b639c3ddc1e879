"""Detections from maps whose contents are known, GenEval's geometry, colours, and parts of a picture."""

from __future__ import annotations

import numpy as np
import pytest

from chashka.evaluation.colours import PROTOTYPES, colour_of, histogram, oklab
from chashka.evaluation.detections import Box, Float, Maps, components, detections
from chashka.evaluation.scene_checks import (
    ABOVE,
    BEHIND,
    BESIDE,
    INSIDE,
    LEFT,
    ON,
    RIGHT,
    UNDER,
    Asked,
    Wanted,
    check,
    directions,
    related,
)  # fmt: skip

GRID, CLASSES = 32, 4
RGB = {"red": (0.86, 0.12, 0.15), "green": (0.2, 0.67, 0.3), "blue": (0.1, 0.5, 0.93), "grey": (0.57, 0.57, 0.57)}


def maps_of(*things: tuple[int, Box, float]) -> Maps:
    """What a perfect judge says of things (label, box, score); label CLASSES is what it rejects."""
    heat = np.zeros((CLASSES + 1, GRID, GRID), np.float32)
    box, mask = np.zeros((4, GRID, GRID), np.float32), np.zeros((3, GRID, GRID), np.float32)
    middle = (np.arange(GRID) + 0.5) / GRID
    x, y = np.meshgrid(middle, middle)
    for label, (x0, y0, x1, y1), score in things:
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        row, column = int(cy * GRID), int(cx * GRID)
        heat[label, row, column] = score
        box[:, row, column] = (cx - middle[column], cy - middle[row], x1 - x0, y1 - y0)
        inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)
        mask[0][inside], mask[1][inside], mask[2][inside] = 1, (cx - x)[inside], (cy - y)[inside]
    return Maps(heat, box, mask)


def painted(*things: tuple[Box, str], ground: bool = False) -> Float:
    """(4, 256, 256) premultiplied in [-1, 1]: boxes in colours."""
    unit = np.zeros((4, 256, 256), np.float32)
    unit[:] = np.array([0.7, 0.7, 0.7, 1], np.float32)[:, None, None] if ground else 0
    for (x0, y0, x1, y1), colour in things:
        rows, columns = slice(int(y0 * 256), int(y1 * 256)), slice(int(x0 * 256), int(x1 * 256))
        unit[:, rows, columns] = np.array([*RGB[colour], 1], np.float32)[:, None, None]
    return unit * 2 - 1


def test_things_come_back_from_their_maps() -> None:
    a, b = (0.1, 0.2, 0.4, 0.6), (0.55, 0.3, 0.95, 0.9)
    found = detections(maps_of((1, a, 0.9), (3, b, 0.5), (2, (0.0, 0.8, 0.2, 1.0), 0.1)), 0.3)
    assert [(f.label, f.score) for f in found] == [(1, pytest.approx(0.9)), (3, pytest.approx(0.5))]
    assert found[0].box == pytest.approx(a, abs=1e-5) and found[1].box == pytest.approx(b, abs=1e-5)
    assert found[0].mask.mean() == pytest.approx(0.12, abs=0.02) and not (found[0].mask & found[1].mask).any()


def test_what_is_rejected_hides_what_is_less_sure() -> None:
    box = (0.3, 0.3, 0.7, 0.7)
    moved = tuple(v + 1 / GRID for v in box)
    assert detections(maps_of((CLASSES, box, 0.8), (1, moved, 0.5)), 0.3) == []  # type: ignore[arg-type]
    assert [f.label for f in detections(maps_of((CLASSES, box, 0.4), (1, moved, 0.5)), 0.3)] == [1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dx", "dy", "said"),
    [
        (-0.5, 0.0, {LEFT}),
        (0.5, 0.0, {RIGHT}),
        (0.0, -0.5, {ABOVE}),
        (0.0, 0.5, {UNDER}),
        (-0.4, -0.4, {LEFT, ABOVE}),
        (0.03, 0.02, set()),
        (0.0, 0.0, set()),
        (0.5, 0.25, {RIGHT}),
    ],
)
def test_directions_are_genevals(dx: float, dy: float, said: set[int]) -> None:
    """Boxes of 0.2: an offset loses 0.04 on each axis; what is left counts above half of the whole offset."""
    a, b = (0.4 + dx, 0.4 + dy, 0.6 + dx, 0.6 + dy), (0.4, 0.4, 0.6, 0.6)
    assert directions(a, b) == said
    whole = np.hypot(dx, dy)
    if whole:
        kept = {LEFT: -dx - 0.04, RIGHT: dx - 0.04, ABOVE: -dy - 0.04, UNDER: dy - 0.04}
        assert directions(a, b) == {r for r, value in kept.items() if value / whole > 0.5}


def test_relations() -> None:
    low, on, high = (0.3, 0.5, 0.7, 0.9), (0.4, 0.2, 0.6, 0.5), (0.4, 0.0, 0.6, 0.2)
    assert related(ON, on, low) and related(ABOVE, on, low) and not related(ON, high, low) and related(ABOVE, high, low)
    assert not related(ON, low, on) and related(UNDER, low, on)
    inside = (0.4, 0.3, 0.6, 0.65)
    assert related(INSIDE, inside, low) and not related(INSIDE, on, low) and not related(INSIDE, low, inside)
    beside = (0.75, 0.5, 0.95, 0.9)
    assert related(BESIDE, beside, low) and related(BESIDE, low, beside) and not related(BESIDE, on, low)
    assert related(BEHIND, inside, low) and not related(BEHIND, high, low)


def test_every_prototype_is_nearest_to_itself() -> None:
    assert oklab(np.array([[1, 1, 1], [0, 0, 0]], np.float32)) == pytest.approx(
        np.array([[1, 0, 0], [0, 0, 0]]), abs=1e-3
    )
    assert len(PROTOTYPES) == 11
    for name, row in (("red", 0), ("green", 3), ("blue", 4), ("grey", 10)):
        assert histogram(np.array([RGB[name]] * 5, np.float32)).argmax() == row
    assert not histogram(np.zeros((0, 3), np.float32)).any()


def test_colour_is_looked_for_in_the_mask_alone() -> None:
    left = (0.1, 0.1, 0.4, 0.9)
    picture = painted((left, "red"), ((0.5, 0.0, 1.0, 1.0), "blue"))
    mask = np.zeros((256, 256), bool)
    mask[:, :128] = True
    assert colour_of(picture, mask) == 0 and colour_of(picture, ~mask) == 4
    assert colour_of(picture, np.zeros_like(mask)) == -1


def test_parts_of_a_mask() -> None:
    mask = np.zeros((20, 20), bool)
    assert components(mask) == 0
    mask[1:8, 1:8] = mask[10:18, 10:18] = True
    assert components(mask) == 2
    mask[1, 15] = True  # a crumb
    assert components(mask) == 2
    mask[8, 8] = mask[9, 9] = True  # joined by corners
    assert components(mask) == 1


@pytest.mark.parametrize("ground", [False, True])
def test_counts_need_the_judge_and_the_parts(ground: bool) -> None:
    boxes = [(0.1, 0.1, 0.4, 0.4), (0.6, 0.1, 0.9, 0.4), (0.1, 0.6, 0.4, 0.9)]
    asked = lambda n: Asked((Wanted(1, count=n),), exact=True)  # noqa: E731

    def right(n: int, said: list[Box], drawn: list[Box]) -> bool:
        maps = maps_of(*((1, box, 0.9) for box in said))
        found, picture = detections(maps, 0.3), painted(*((box, "red") for box in drawn), ground=ground)
        return check(asked(n), found, found, picture, maps.mask[0] > 0.5).correct

    assert right(3, boxes, boxes)
    assert not right(2, boxes, boxes), "n + 1 are too many"
    assert not right(3, boxes[:2], boxes[:2])
    if not ground:
        assert not right(2, boxes[:2], boxes), "the judge sees two, the picture has three parts"


def test_attributes_belong_to_their_things() -> None:
    a, b = (0.05, 0.3, 0.4, 0.7), (0.6, 0.3, 0.95, 0.7)
    maps = maps_of((1, a, 0.9), (2, b, 0.9))
    found, covered = detections(maps, 0.3), maps.mask[0] > 0.5
    asked = Asked((Wanted(1, 0), Wanted(2, 4)), LEFT)
    assert check(asked, found, found, painted((a, "red"), (b, "blue")), covered).correct
    swapped = check(asked, found, found, painted((a, "blue"), (b, "red")), covered)
    assert swapped.found and swapped.placed and not swapped.coloured and not swapped.correct
    turned = check(Asked((Wanted(2), Wanted(1)), LEFT), found, found, painted((a, "red"), (b, "blue")), covered)
    assert turned.found and not turned.placed
    assert not check(Asked((Wanted(3),)), found, found, painted((a, "red")), covered).found
