"""Composed pictures show what the table of scenes says."""

from __future__ import annotations

import torch
from pytest import approx, fixture, mark

from chashka.training.grounds import LANDS, paint
from chashka.training.layout import ABOVE, BEHIND, INSIDE, LEFT, ON, RIGHT, UNDER, WEARING
from chashka.training.pictures import Pictures
from chashka.training.recolour import COLOURS, colour_rgb, from_lch, recolour, to_lch
from chashka.training.scenes import Composer, SceneTable, boxes

pytestmark = mark.torch
EMOJI = ["red", "blue", "green"]


@fixture(scope="module")
def pictures() -> Pictures:
    """A square, a disc and a wide bar, each in two styles; one more red square is held out (and is grey)."""
    y, x = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    shapes = [
        (x - 128).abs().maximum((y - 128).abs()) < 90,
        (x - 128) ** 2 + (y - 120) ** 2 < 80**2,
        ((x - 128).abs() < 100) & ((y - 140).abs() < 50),
    ]
    pixels = torch.zeros(7, 4, 256, 256, dtype=torch.uint8)
    for i in range(6):
        for channel in (3, (0, 2, 1)[i % 3]):
            pixels[i, channel][shapes[i % 3]] = 255 if channel == 3 else 200
    pixels[6, :, shapes[0]] = 128
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    style = torch.tensor([0, 0, 0, 1, 1, 1, 0])
    held = torch.tensor([False] * 6 + [True])
    return Pictures(
        pixels,
        labels,
        style,
        labels * 0,
        torch.ones(7),
        held,
        [f"emoji:{e}" for e in EMOJI],
        ["flat", "3d"],
        ["things"],
    )


def table(*rows: tuple[list[int], int], **columns: list[int]) -> SceneTable:
    """Scenes of (nouns, relation); other columns are -1 unless given."""
    noun = torch.full((len(rows), 5), -1)
    for i, (nouns, _) in enumerate(rows):
        noun[i, : len(nouns)] = torch.tensor(nouns)
    blank, none = torch.full((len(rows),), -1), torch.zeros(0, dtype=torch.int64)
    given = {name: torch.tensor(values) for name, values in columns.items()}
    colour = given.pop("colour", None)
    wide = torch.full((len(rows), 5), -1)
    if colour is not None:
        wide[:, 0] = colour
    parts = {"ground": blank, "ground_colour": blank, "style": blank} | given
    return SceneTable(
        noun, wide, torch.full((len(rows), 5), -1), torch.tensor([r for _, r in rows]), **parts,
        ids=none, offsets=none, scene=none, locale=none, emoji=EMOJI, styles=["flat", "3d"], locales=["en"],
    )  # fmt: skip


def composed(scenes: SceneTable, pictures: Pictures, seed: int = 0) -> torch.Tensor:
    chance = torch.Generator().manual_seed(seed)
    out = Composer(scenes, pictures, "cpu")(torch.arange(len(scenes)), chance)
    assert out.shape == (len(scenes), 4, 256, 256) and float(out.min()) >= -1 and float(out.max()) <= 1
    return out * 0.5 + 0.5


def centre(channel: torch.Tensor) -> tuple[float, float]:
    """(x, y) of the mass of one channel."""
    down, across = (torch.arange(n) + 0.5 for n in channel.shape)
    total = float(channel.sum())
    return float((channel.sum(0) * across).sum()) / total, float((channel.sum(1) * down).sum()) / total


def test_relations_are_what_they_say(pictures: Pictures) -> None:
    for seed in range(4):
        scenes = table(*(([0, 1], relation) for relation in (LEFT, RIGHT, ON, ABOVE, UNDER)))
        red, blue = zip(*((centre(p[0]), centre(p[2])) for p in composed(scenes, pictures, seed)), strict=True)
        assert red[0][0] < blue[0][0] - 60 and red[1][0] > blue[1][0] + 60
        assert red[2][1] < blue[2][1] - 60 and red[3][1] < blue[3][1] - 60 and red[4][1] > blue[4][1] + 60


def test_things_stand_on_each_other_and_apart(pictures: Pictures) -> None:
    on, above = composed(table(([0, 2], ON), ([0, 2], ABOVE)), pictures)
    rows = [(p[3].amax(1) > 0.5).float() for p in (on, above)]
    gaps = [int((row.diff() == 1).sum()) + int(row[0]) for row in rows]  # runs of opaque rows
    assert gaps == [1, 2]


def test_what_is_in_front_hides_what_is_behind(pictures: Pictures) -> None:
    behind, inside, wearing = composed(table(([0, 1], BEHIND), ([0, 1], INSIDE), ([0, 2], WEARING)), pictures)
    for picture in (behind, inside, wearing):
        assert float((picture[0] * picture[2]).max()) < 0.6  # never both: one hides the other
    # what is inside shows above the holder's rim and not below it
    red, blue = centre(inside[0]), centre(inside[2])
    assert red[1] < blue[1] and abs(red[0] - blue[0]) < 20
    assert centre(wearing[1])[1] < centre(wearing[0])[1]


def test_counts_are_of_one_drawing_each_apart(pictures: Pictures) -> None:
    scenes = table(*(([1] * n, -1) for n in range(1, 6)))
    areas = [float((p[3] > 0.5).float().mean()) for p in composed(scenes, pictures)]
    one, two, three, four, five = (area / n for n, area in enumerate(areas, 1))
    assert one > two > max(three, four) and min(three, four) > five > 0.03
    assert three == approx(four, rel=0.2)


@mark.parametrize("canvas", [(192, 320), (320, 192), (192, 256)])
def test_things_keep_their_shape_on_canvases_that_are_not_square(pictures: Pictures, canvas: tuple[int, int]) -> None:
    scenes = table(([1], -1), ([0, 1], LEFT), ([0, 1], ON), ([0, 1], INSIDE), ([1] * 3, -1))
    out = Composer(scenes, pictures, "cpu")(torch.arange(5), torch.Generator().manual_seed(0), canvas) * 0.5 + 0.5
    assert out.shape == (5, 4, *canvas)
    disc = out[0, 2] > 0.3
    columns, rows = (int(disc.any(axis).sum()) for axis in (0, 1))
    assert columns == approx(rows, abs=3) and columns > 0.75 * min(canvas)
    for picture in out:  # nothing is cut off
        edge = torch.cat([picture[3, 0], picture[3, -1], picture[3, :, 0], picture[3, :, -1]])
        assert float(edge.max()) < 0.5
    red, blue = ([(0.0, 0.0), *(centre(p[c]) for p in out[1:4])] for c in (0, 2))
    assert red[1][0] < blue[1][0] - 60 and abs(red[1][1] - blue[1][1]) < 20
    assert red[2][1] < blue[2][1] - 40 and abs(red[2][0] - blue[2][0]) < 40
    assert red[3][1] < blue[3][1] and abs(red[3][0] - blue[3][0]) < 20
    if max(canvas) < 1.5 * min(canvas):
        return
    # three in a row along the longer side
    along = (out[4, 3] > 0.5).any(0 if canvas[1] > canvas[0] else 1).float()
    assert int((along.diff() == 1).sum()) + int(along[0]) == 3


def test_held_out_drawings_are_never_used(pictures: Pictures) -> None:
    out = composed(table(*(([0], -1),) * 24), pictures)
    assert float(out[:, 1].max()) < 0.01  # the held-out one is grey


def test_a_style_that_is_asked_for(pictures: Pictures) -> None:
    scenes = table(*(([0, 1], LEFT),) * 12, style=[0] * 6 + [1] * 6)
    composer = Composer(scenes, pictures, "cpu")
    drawing = composer._choose(scenes.noun, scenes.style, torch.Generator().manual_seed(0))[:, :2]
    assert (pictures.style[drawing] == scenes.style[:, None]).all()


@mark.parametrize("colour", range(11))
def test_colours(pictures: Pictures, colour: int) -> None:
    pixels = pictures.pixels[:3].float() / 255
    out = recolour(pixels, torch.tensor([colour, colour, -1]))
    assert torch.equal(out[2], pixels[2]) and torch.allclose(out[:, 3], pixels[:, 3])
    light, chroma, hue = to_lch(out[:2, :3, 120:121, 120:121])
    wanted = COLOURS[colour]
    if wanted[1] > 0:
        away = torch.remainder(hue * 180 / torch.pi - wanted[2] + 180, 360) - 180
        assert float(away.abs().max()) < 12 and float(chroma.min()) > 0.05
    else:
        assert float(chroma.max()) < 0.06
    assert light.flatten().tolist() == approx([float(wanted[0])] * 2, abs=0.15)


def test_the_colour_space_goes_both_ways() -> None:
    rgb = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(from_lch(*to_lch(rgb)), rgb, atol=2e-3)


def test_grounds(pictures: Pictures) -> None:
    ground = torch.tensor([-1, 0, *LANDS])
    out = paint(ground, torch.tensor([-1, 4] + [-1] * len(LANDS)), (64, 96), torch.Generator().manual_seed(0))
    assert out.shape[1:] == (4, 64, 96) and float(out[0].abs().max()) == 0 and bool((out[1:, 3] == 1).all())
    assert torch.allclose(out[1, :3, 5, 5], colour_rgb(torch.tensor([4]))[0], atol=0.05)
    flat = out[1:].flatten(1)
    assert float(torch.cdist(flat, flat).add(torch.eye(len(flat)) * 99).min()) > 1  # all different


def test_boxes_of_what_is_opaque(pictures: Pictures) -> None:
    box, crown = boxes(pictures.pixels[:3])
    assert (box * 256).tolist() == [[39, 39, 218, 218], [49, 41, 208, 200], [29, 91, 228, 190]]
    assert crown.tolist() == approx([0.5] * 3, abs=0.01)
    assert boxes(torch.zeros(1, 4, 16, 16, dtype=torch.uint8))[0].tolist() == [[0.0, 0.0, 1.0, 1.0]]
