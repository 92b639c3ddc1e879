"""Where the things of composed scenes stand, on square, wide and tall canvases.

Lengths are in the canvas's shorter side. ``reach`` is the canvas in that unit: (1, 1) for a square one, (5/3, 1) for one of
320×192.
"""

from __future__ import annotations

import torch

INSIDE, ON, UNDER, LEFT, RIGHT, BESIDE, BEHIND, ABOVE, WEARING = range(9)
"""The relations of data/composed_words.RELATIONS."""
OPENING = 0.30
"""A holder hides what is inside of it below this share of its height."""
Spots = dict[int, tuple[tuple[float, float, float], ...]]
TOGETHER: Spots = {
    1: ((0.5, 0.5, 0.84),),
    2: ((0.27, 0.5, 0.46), (0.73, 0.5, 0.46)),
    3: ((0.5, 0.27, 0.42), (0.27, 0.73, 0.42), (0.73, 0.73, 0.42)),
    4: ((0.27, 0.27, 0.42), (0.73, 0.27, 0.42), (0.27, 0.73, 0.42), (0.73, 0.73, 0.42)),
    5: ((0.24, 0.24, 0.36), (0.76, 0.24, 0.36), (0.5, 0.5, 0.34), (0.24, 0.76, 0.36), (0.76, 0.76, 0.36)),
}
"""How many things stand together on a square → centre x, centre y (shares of the canvas) and longest side of each."""
LONG: Spots = {
    1: ((0.5, 0.5, 0.90),),
    2: ((0.27, 0.5, 0.70), (0.73, 0.5, 0.70)),
    3: ((0.19, 0.5, 0.42), (0.50, 0.5, 0.42), (0.81, 0.5, 0.42)),
    4: ((0.28, 0.27, 0.44), (0.72, 0.27, 0.44), (0.28, 0.73, 0.44), (0.72, 0.73, 0.44)),
    5: ((0.18, 0.26, 0.42), (0.50, 0.26, 0.42), (0.82, 0.26, 0.42), (0.34, 0.74, 0.42), (0.66, 0.74, 0.42)),
}
"""The same on a canvas that is wider than 3:2; on a tall one x and y change places."""
# sides of the first and the second thing by relation, where they differ from LEFT's
SIDES = {INSIDE: (0.42, 0.66), ON: (0.42, 0.50), UNDER: (0.42, 0.46), BEHIND: (0.60, 0.46), ABOVE: (0.42, 0.46)}
SIDES |= {WEARING: (0.62, 0.28)}
SIZES = (1.2, 0.65)
"""Big and small, as factors."""
ASIDE = 0.5
"""A group on a long canvas moves to either side by at most this share of the room that it leaves."""


def layout(
    count: torch.Tensor,
    relation: torch.Tensor,
    size: torch.Tensor,
    shape: torch.Tensor,
    crown: torch.Tensor,
    chance: torch.Generator,
    reach: tuple[float, float] = (1.0, 1.0),
) -> torch.Tensor:
    """(B, O, 3): centre x and y as shares of the canvas, and the longest side of every thing's box.

    ``count`` (B,): how many things; ``relation`` (B,); ``size`` (B, O): 0 big, 1 small, else neither; ``shape`` (B, O, 2): the
    boxes' width and height, the longer 1; ``crown`` (B,): where across its box the first thing is highest.
    """
    b, slots = size.shape
    place, long = torch.zeros(b, slots, 3), max(reach) > 1.5
    for n, spots in (LONG if long else TOGETHER).items():
        chosen = torch.nonzero(count == n).squeeze(1)
        if len(chosen):
            table = torch.tensor(spots)
            table = table[:, [1, 0, 2]] if reach[1] > reach[0] and long else table
            turn = torch.argsort(torch.rand(len(chosen), n, generator=chance), 1)
            place[chosen, :n] = table[turn]
    factor = torch.ones(b, slots)
    for i, value in enumerate(SIZES):
        factor = torch.where(size == i, value, factor)
    jitter = torch.rand(b, slots, 3, generator=chance)
    place[..., :2] += (jitter[..., :2] - 0.5) * 0.05
    place[..., 2] *= (0.93 + 0.10 * jitter[..., 2]) * factor
    for number in range(9):
        chosen = torch.nonzero(relation == number).squeeze(1)
        if len(chosen):
            pair = related(number, shape[chosen, :2], factor[chosen, :2], crown[chosen], jitter[chosen, 0])
            place[chosen, :2] = on_canvas(pair, number, reach, chance)
    half = 0.5 * place[..., 2:] / torch.tensor(reach)
    place[..., :2] = place[..., :2].clamp(min=half.clamp(max=0.5), max=1 - half.clamp(max=0.5))
    return place


def related(
    relation: int, shape: torch.Tensor, factor: torch.Tensor, crown: torch.Tensor, jitter: torch.Tensor
) -> torch.Tensor:
    """Places (B, 2, 3) of two things in a relation on a square. ``shape`` (B, 2, 2); ``factor`` (B, 2): sizes; ``crown``
    (B,); ``jitter`` (B, 3) in [0, 1]."""
    side = torch.tensor(SIDES.get(relation, (0.46, 0.46))) * factor * (0.94 + 0.1 * jitter[:, 2:])
    (wa, ha), (_, hb) = ((shape[:, i] * side[:, i : i + 1]).unbind(1) for i in range(2))
    x = 0.5 + 0.12 * (jitter[:, 0] - 0.5)
    away = torch.where(jitter[:, 1] < 0.5, -1.0, 1.0)
    half = torch.full_like(x, 0.5)
    if relation in (LEFT, RIGHT, BESIDE):
        way = {LEFT: -1.0, RIGHT: 1.0}.get(relation, away)
        ax, bx, ay, by = half + way * 0.25, half - way * 0.25, half, half + 0.05 * (jitter[:, 0] - 0.5)
    elif relation in (ON, ABOVE, UNDER):
        gap = {ON: -0.03, ABOVE: 0.06, UNDER: 0.02}[relation]
        upper, lower = (hb, ha) if relation == UNDER else (ha, hb)
        top = 0.5 - 0.5 * (upper + gap + lower)
        high, low = top + 0.5 * upper, top + upper + gap + 0.5 * lower
        ax, bx = x, 1 - x
        ay, by = (low, high) if relation == UNDER else (high, low)
    elif relation == BEHIND:
        ax, ay, bx, by = half - 0.10 * away, half - 0.08, half + 0.12 * away, 0.92 - 0.5 * hb
    elif relation == INSIDE:
        bx, by = half, 0.95 - 0.5 * hb
        ax, ay = x, by - 0.5 * hb + 0.42 * hb - 0.5 * ha
    else:
        ax, ay = half, 0.97 - 0.5 * ha
        bx, by = ax + (crown - 0.5) * wa, ay - 0.5 * ha + 0.22 * hb - 0.5 * hb
    return torch.stack([torch.stack([ax, ay, side[:, 0]], 1), torch.stack([bx, by, side[:, 1]], 1)], 1)


def on_canvas(pair: torch.Tensor, relation: int, reach: tuple[float, float], chance: torch.Generator) -> torch.Tensor:
    """Places of pairs on a square → on a canvas: side by side they use its width and grow, otherwise they move as one."""
    wide, tall = reach
    if wide == tall:
        return pair
    out = pair.clone()
    if wide > tall and relation in (LEFT, RIGHT, BESIDE):
        out[..., 2] *= min(wide / tall, 1.5)
        return out  # shares of the canvas already: the distance grows with its width
    room = torch.tensor([wide - 1, tall - 1])
    move = (torch.rand(len(pair), 1, generator=chance) - 0.5) * ASIDE
    out[..., :2] = (pair[..., :2] + room / 2 + move[:, :, None] * room) / torch.tensor(reach)
    return out
