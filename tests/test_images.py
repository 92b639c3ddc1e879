"""Pictures in and out: limits, orientation, colour, alpha, files that are whole or absent, metadata."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from chashka import images
from chashka.errors import FileError, InputError
from chashka.families.kandinsky.options import Options
from chashka.request import Picture

PROMPT = 'космос, "внутри": <чашки> & 🫖\nи ещё'


def picture(height: int = 24, width: int = 40, channels: int = 4, edited: bool = False) -> Picture:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8)
    request = Options(prompt=PROMPT, negative_prompt="плохо", steps=20, sampler="ddim", guidance_scale=4, seed=7)
    return Picture(pixels, 7, 2, request, ("note",), "kandinsky-teacup", "kandinsky", edited)


def smooth(height: int, width: int) -> Any:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 90), np.full_like(x, 255)], -1).astype(
        np.uint8
    )


# --- reading ------------------------------------------------------------------------------------------------------------


def test_read_keeps_png_pixels_and_alpha(tmp_path: Path) -> None:
    folder = tmp_path / "папка с пробелами"
    folder.mkdir()
    pixels = picture().pixels
    Image.fromarray(pixels).save(folder / "вход 1.png")
    assert np.array_equal(images.read(folder / "вход 1.png"), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_every_mode_becomes_straight_rgba(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray((np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8))
    else:
        image = Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    pixels = images.read(path)
    assert pixels.shape == (8, 8, 4) and pixels.dtype == np.uint8
    assert pixels[..., 3].min() == 255
    assert pixels[-1, -1, 0] == (round(63_000 / 65535 * 255) if mode == "I;16" else 255)


def test_palette_transparency_survives(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 1)
    image.save(tmp_path / "p.png", transparency=0)
    pixels = images.read(tmp_path / "p.png")
    assert pixels[0, 0].tolist() == [0, 255, 0, 255]
    assert pixels[1, 1, 3] == 0


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    Image.fromarray(smooth(10, 30)[..., :3]).save(tmp_path / "turned.png", exif=exif)
    turned = images.read(tmp_path / "turned.png")
    assert turned.shape == (30, 10, 4)
    assert np.array_equal(turned, np.rot90(smooth(10, 30), -1))


def test_a_colour_profile_is_converted_and_a_broken_one_is_passed_over(tmp_path: Path) -> None:
    pixels = smooth(16, 16)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "srgb.png", icc_profile=lab)
    assert np.abs(images.read(tmp_path / "srgb.png").astype(int) - pixels).max() <= 1
    Image.fromarray(pixels).save(tmp_path / "broken.png", icc_profile=b"this is no profile")
    assert np.array_equal(images.read(tmp_path / "broken.png"), pixels)


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert images.read(tmp_path / "a.webp")[0, 0].tolist() == [255, 0, 0, 255]


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(5001, 5000), (12_000, 9_000), (60_000, 60_000)])
def test_huge_pictures_are_refused_before_decoding(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(*size))
    with pytest.raises(FileError, match="25 megapixels") as caught:
        images.read(tmp_path / "bomb.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        b"GIF89a" + bytes(40),
        b"<svg/>",
        b"\x89PNG\r\n\x1a\n",
        bomb(10, 10),
        b"\xff\xd8\xff\xe0" + bytes(9),
    ],
)
def test_what_is_no_picture_says_so_in_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "файл.png"
    path.write_bytes(data)
    with pytest.raises(FileError) as caught:
        images.read(path)
    assert "файл.png" in str(caught.value) and "\n" not in str(caught.value)


def test_cut_off_and_flipped_files_never_escape_as_anything_else(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg", ".webp"):
        whole = images.save(picture(), tmp_path / f"a{suffix}").read_bytes()
        chance = np.random.default_rng(3)
        for i in range(40):
            data = bytearray(whole)
            if i % 2:
                del data[int(chance.integers(len(data))) :]
            else:
                for place in chance.integers(len(data), size=8):
                    data[place] ^= 255
            (tmp_path / "b").write_bytes(data)
            try:
                images.read(tmp_path / "b")
                images.read_metadata(tmp_path / "b")
            except FileError as error:
                assert "\n" not in str(error)


def test_a_missing_file_and_a_folder_are_file_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "нет.png", tmp_path):
        with pytest.raises(FileError):
            images.read(path)


# --- masks --------------------------------------------------------------------------------------------------------------


def test_white_is_repaint(tmp_path: Path) -> None:
    grey = np.zeros((10, 20), np.uint8)
    grey[2:5, 3:9] = 255
    Image.fromarray(grey).save(tmp_path / "m.png")
    assert np.array_equal(images.read_mask(tmp_path / "m.png"), grey / np.float32(255))


def test_a_drawing_on_transparent_ground_is_a_mask_in_any_colour(tmp_path: Path) -> None:
    for value in (0, 255):
        pixels = np.zeros((10, 20, 4), np.uint8)
        pixels[2:5, 3:9] = (value, value, value, 255)
        Image.fromarray(pixels).save(tmp_path / "m.png")
        mask = images.read_mask(tmp_path / "m.png")
        assert mask.sum() == pytest.approx(18) and mask[3, 4] == pytest.approx(1)


def test_a_black_mask_is_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "m.png")
    with pytest.raises(InputError, match="black all over"):
        images.read_mask(tmp_path / "m.png")


def test_a_mask_of_another_size_is_resized_and_noted() -> None:
    mask = np.zeros((10, 10), np.float32)
    mask[:, 5:] = 1
    fitted, note = images.fit_mask(mask, 40, 20)
    assert fitted.shape == (20, 40) and fitted[:, :15].max() == 0 and fitted[:, 25:].min() == 1
    assert note is not None and "10x10" in note and "40x20" in note
    assert images.fit_mask(mask, 10, 10) == (mask, None)


# --- arrays -------------------------------------------------------------------------------------------------------------


def test_opaque_pixels_survive_the_network_space() -> None:
    pixels = picture().pixels
    pixels[..., 3] = 255
    values = images.to_network(pixels)
    assert values.shape == (4, 24, 40) and values.dtype == np.float32
    assert np.array_equal(images.from_network(values), pixels)
    assert np.array_equal(images.from_network(images.to_network(pixels[..., :3])), pixels)


def test_transparent_is_minus_one_in_all_channels() -> None:
    assert np.array_equal(
        images.to_network(np.array([[[200, 100, 50, 0]]], np.uint8)), np.full((4, 1, 1), -1, np.float32)
    )
    assert not images.from_network(np.full((4, 1, 1), -1.2, np.float32)).any()


def test_half_transparent_pixels_survive_within_rounding() -> None:
    pixels = picture().pixels
    pixels[..., 3] = np.maximum(pixels[..., 3], 4)
    back = images.from_network(images.to_network(pixels))
    # the colour is known to 1/255 of its premultiplied value, in float32 far better
    assert np.abs(back.astype(int) - pixels).max() <= 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_anything_a_decoder_says_is_a_picture(seed: int) -> None:
    values = np.random.default_rng(seed).normal(0, 2, (2, 4, 5, 7)).astype(np.float32)
    pixels = images.from_network(values)
    assert pixels.shape == (2, 5, 7, 4)
    assert not pixels[pixels[..., 3] == 0].any()


def test_resize_has_no_halo() -> None:
    """White next to transparent black: no grey may bleed into the edge."""
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, :16] = 255
    for size in ((100, 90), (8, 8), (33, 31)):
        small = images.resize(pixels, *size)
        assert small.shape == (size[1], size[0], 4)
        seen = small[small[..., 3] > 8]
        assert seen[:, :3].min() >= 250


def test_resize_keeps_a_smooth_picture() -> None:
    back = images.resize(images.resize(smooth(64, 64), 128, 128), 64, 64)
    assert np.abs(back.astype(int) - smooth(64, 64))[4:-4, 4:-4].max() <= 2


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("side", [48, 96])
def test_resize_knows_no_edge_where_a_picture_continues(channels: int, side: int) -> None:
    """Turned by half and then scaled is scaled and then turned by half, of noise too; an axis that ends does not continue."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, channels), np.uint8)
    for axis, wrap, other in ((1, "x", "y"), (0, "y", "x")):
        turned = images.resize(np.roll(pixels, 32, axis=axis), side, side, wrap)
        whole = images.resize(pixels, side, side, wrap)
        assert np.abs(turned.astype(int) - np.roll(whole, side // 2, axis=axis)).max() <= 1
        ended = images.resize(np.roll(pixels, 32, axis=axis), side, side, other)
        assert (
            np.abs(ended.astype(int) - np.roll(images.resize(pixels, side, side, other), side // 2, axis=axis)) > 8
        ).any()


def test_flatten_and_on_colour() -> None:
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    assert images.flatten(pixels).tolist() == [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]]
    assert images.on_colour(pixels, "#102030")[0, 1].tolist() == [16, 32, 48]
    assert images.on_colour(pixels, "transparent") is pixels


def test_grid_places_pictures_in_reading_order() -> None:
    tiles = [np.full((4, 6, 4), value, np.uint8) for value in (1, 2, 3)]
    sheet = images.grid(tiles, gap=2)
    assert sheet.shape == (10, 14, 4)
    assert (sheet[0, 0, 0], sheet[0, 8, 0], sheet[6, 0, 0], sheet[6, 8, 0], sheet[4, 0, 0]) == (1, 2, 3, 0, 0)
