"""Pictures traced into SVG files: drawn again they look the same, and the files say what PNGs say."""

from __future__ import annotations

import io
import re
from pathlib import Path
from xml.etree import ElementTree  # the standard library's parser, on text that we made

import numpy as np
import pytest
import resvg_py
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import chashka
from chashka import images
from chashka.families.kandinsky.options import Options
from chashka.images.tracing import palette_of, reduce_colours
from chashka.request import Picture

pytestmark = pytest.mark.extra

SVG = "{http://www.w3.org/2000/svg}"
PROMPT = 'космос, "внутри": <чашки> & ]]> <metadata> chashka:request="{}" \x00 🫖\nи ещё'


def drawing(size: int = 128, ring: bool = True, background: str = "#00000000") -> NDArray[np.uint8]:
    """A red disc with a dark eye and a white mark, and a hole if ``ring``, drawn with soft edges."""
    big = Image.new("RGBA", (size * 4, size * 4), background)
    draw = ImageDraw.Draw(big)
    unit = size * 4 / 16
    draw.ellipse([2 * unit, 2 * unit, 14 * unit, 14 * unit], fill="#d83018")
    draw.ellipse([4 * unit, 4 * unit, 6 * unit, 6 * unit], fill="#201828")
    draw.rectangle([9 * unit, 4 * unit, 11 * unit, 6 * unit], fill="#ffffff")
    if ring:
        draw.ellipse([6 * unit, 8 * unit, 10 * unit, 12 * unit], fill=background)
    return images.resize(np.asarray(big), size, size)


def picture(pixels: NDArray[np.uint8], prompt: str = PROMPT, edited: bool = False) -> Picture:
    return Picture(pixels, 7, 2, Options(prompt=prompt, seed=7), (), "kandinsky-teacup", "kandinsky", edited)


def drawn_again(path: Path) -> NDArray[np.uint8]:
    png = bytes(resvg_py.svg_to_bytes(svg_string=path.read_text(encoding="utf-8"), skip_system_fonts=True))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """In dB, on white."""
    difference = images.flatten(a).astype(np.float64) - images.flatten(b).astype(np.float64)
    return float(10 * np.log10(255**2 / (difference**2).mean()))


def alpha_iou(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    first, second = a[..., 3] >= 128, b[..., 3] >= 128
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize("size", [128, 600, 1100])
def test_a_traced_picture_looks_the_same(tmp_path: Path, size: int) -> None:
    pixels = drawing(size)
    again = drawn_again(chashka.save(picture(pixels), tmp_path / "a.svg"))
    assert again.shape == pixels.shape
    assert psnr(again, pixels) > 27
    assert alpha_iou(again, pixels) > 0.98
    assert not again[[0, 0, -1, -1], [0, -1, 0, -1], 3].any(), "the ground is not empty"
    assert again[size * 10 // 16, size // 2, 3] == 0, "the hole is filled"


@pytest.mark.parametrize("background", ["#ffffff", "#204060"])
def test_an_opaque_picture_stays_opaque_to_its_corners(tmp_path: Path, background: str) -> None:
    pixels = drawing(background=background)[..., :3]
    again = drawn_again(images.save(picture(pixels), tmp_path / "a.svg"))
    assert again[..., 3].min() == 255
    assert psnr(again, pixels) > 27


def test_a_little_transparency_stays_empty_too(tmp_path: Path) -> None:
    """The tracer alone would paint it black: it looks for transparency in a few rows only."""
    pixels = np.full((96, 96, 4), (240, 200, 40, 255), np.uint8)
    pixels[30:44, 30:44] = 0
    again = drawn_again(images.save(picture(pixels), tmp_path / "a.svg"))
    assert again[36, 36, 3] == 0 and again[..., 3].mean() > 240
    assert alpha_iou(again, pixels) > 0.98


def test_a_long_picture_keeps_its_size(tmp_path: Path) -> None:
    """Traced at another size than its own, whose rounding changes its proportions."""
    pixels = images.resize(drawing(300), 1501, 499)
    again = drawn_again(images.save(picture(pixels), tmp_path / "a.svg"))
    assert again.shape == pixels.shape and alpha_iou(again, pixels) > 0.96


def test_an_empty_picture_is_an_empty_file(tmp_path: Path) -> None:
    again = drawn_again(images.save(picture(np.zeros((64, 80, 4), np.uint8)), tmp_path / "a.svg"))
    assert again.shape == (64, 80, 4) and not again.any()


def test_the_strongest_colours_are_kept(tmp_path: Path) -> None:
    """All colours that the tracer would mark transparency with, beside transparency."""
    pixels = np.zeros((128, 128, 4), np.uint8)
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)]
    for i, colour in enumerate(colours):
        pixels[20 * i : 20 * i + 20, 32:96] = (*colour, 255)
    saved = [images.save(picture(pixels), tmp_path / f"{i}.svg") for i in range(3)]
    assert len({path.read_bytes() for path in saved}) == 1
    again = drawn_again(saved[0])
    for i, colour in enumerate(colours):
        assert np.abs(again[20 * i + 10, 64].astype(int) - (*colour, 255)).max() <= 1


def test_few_colours_and_no_half_alpha() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    reduced = reduce_colours(noise, palette_of(noise))
    assert set(np.unique(reduced[..., 3])) == {0, 255}
    assert np.array_equal(reduced[..., 3] == 255, noise[..., 3] >= 128)
    assert len(np.unique(reduced[reduced[..., 3] == 255], axis=0)) <= 16
    assert not reduced[reduced[..., 3] == 0].any()


@pytest.mark.parametrize("edited", [False, True])
def test_the_file_says_what_a_png_says(tmp_path: Path, edited: bool) -> None:
    shown = picture(drawing(), edited=edited)
    path = images.save(shown, tmp_path / "картинка один.SVG")
    assert images.read_metadata(path) == images.describe(shown)
    root = ElementTree.fromstring(path.read_bytes())
    assert [child.tag.removeprefix(SVG) for child in root][:3] == ["title", "desc", "metadata"]
    assert {child.tag.removeprefix(SVG) for child in root[3:]} == {"path"}
    assert root[0].text == PROMPT.replace("\x00", "")
    assert re.fullmatch(r"Traced from \d+x\d+ pixels with chashka [\d.]+\.", str(root[1].text))
    kind = "compositeWithTrainedAlgorithmicMedia" if edited else "trainedAlgorithmicMedia"
    assert f'DigitalSourceType="{images.metadata.SOURCE_TYPE}{kind}"' in path.read_text(encoding="utf-8")


def test_the_longest_request_is_read_back(tmp_path: Path) -> None:
    request = Options(prompt="&" * 10_000, negative_prompt="\U0001f980" * 10_000, seed=1)
    longest = Picture(drawing(), 1, 0, request, (), "m", "kandinsky")
    assert images.read_metadata(images.save(longest, tmp_path / "a.svg")) == images.describe(longest)


def test_other_svg_files_have_no_metadata_of_ours(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("<svg/>")
    assert images.read_metadata(tmp_path / "a.svg") is None
    with pytest.raises(chashka.FileError, match="No such file"):
        images.read_metadata(tmp_path / "b.svg")


def test_equal_pictures_are_equal_files(tmp_path: Path) -> None:
    first, second = (images.save(picture(drawing()), tmp_path / f"{i}.svg").read_bytes() for i in (1, 2))
    assert first == second
