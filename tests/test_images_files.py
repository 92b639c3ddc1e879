"""Picture files: metadata in and out, and writing that leaves nothing half done."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import chashka
from chashka import images
from chashka.app.dialects.pictures import reencoded
from chashka.errors import FileError, InputError
from chashka.families.kandinsky.options import Options
from chashka.images.metadata import jpeg_xmp, label_of, told, xmp
from chashka.request import Picture

PROMPT = 'космос, "внутри": <чашки> & 🫖\nи ещё'


def picture(height: int = 24, width: int = 40, channels: int = 4, edited: bool = False) -> Picture:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8)
    request = Options(prompt=PROMPT, negative_prompt="плохо", steps=20, sampler="ddim", guidance_scale=4, seed=7)
    return Picture(pixels, 7, 2, request, ("note",), "kandinsky-teacup", "kandinsky", edited)


# --- metadata -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
@pytest.mark.parametrize("edited", [False, True])
def test_metadata_comes_back(tmp_path: Path, suffix: str, edited: bool) -> None:
    path = images.save(picture(edited=edited), tmp_path / f"картинка один{suffix}")
    found = images.read_metadata(path)
    assert found == images.describe(picture(edited=edited))
    assert Options.of(found["request"]).prompt == PROMPT
    kind = "compositeWithTrainedAlgorithmicMedia" if edited else "trainedAlgorithmicMedia"
    data = path.read_bytes()
    assert f"digitalsourcetype/{kind}".encode() in data
    assert f"chashka {chashka.__version__}".encode() in data


def test_png_carries_the_a1111_text(tmp_path: Path) -> None:
    with Image.open(images.save(picture(), tmp_path / "a.png")) as image:
        text = image.info["parameters"]
        own = json.loads(image.info["chashka"])
    assert text.startswith(
        PROMPT + "\nNegative prompt: плохо\nSteps: 20, Sampler: ddim, CFG scale: 4, Seed: 7, Size: 40x24, "
    )
    assert "Model: kandinsky-teacup" in text.splitlines()[-1]
    assert own["picture"] == 2 and own["seed"] == 7 and own["family"] == "kandinsky"


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_exif_carries_the_a1111_text(tmp_path: Path, suffix: str) -> None:
    with Image.open(images.save(picture(), tmp_path / f"a{suffix}")) as image:
        comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be") == images.a1111_parameters(picture())


def test_values_with_commas_are_quoted_as_a1111_does() -> None:
    odd = Picture(picture().pixels, 1, 0, Options(prompt="a", seed=1), (), "a, b: c", "kandinsky")
    assert 'Model: "a, b: c"' in images.a1111_parameters(odd)


def test_xmp_is_well_formed_for_any_prompt() -> None:
    from xml.etree import ElementTree  # the standard library's parser, on text that we made

    for prompt in (PROMPT, "]]> &amp; <!-- \x00\x0b\uffff ' \"", "a" * 2000, "я" * 2000, '&"' * 5000):
        request = Options(prompt=prompt, seed=1)
        label = label_of(Picture(picture().pixels, 1, 0, request, (), "m", "kandinsky"))
        main, rest = jpeg_xmp(label)
        for packet in (xmp(label), main):
            ElementTree.fromstring(packet.decode().replace("\ufeff", "").split("?>", 1)[1].rsplit("<?", 1)[0])
        assert len(main) <= 65_000 and (main == xmp(label)) == (not rest)
        if rest:
            (about,) = ElementTree.fromstring(rest.decode())[0]
            assert json.loads(about.attrib["{urn:chashka:1}request"])["request"]["prompt"] == prompt


LONG = [
    ("a red cat, " * 909 + "x", "blurry"),
    ("кот на столе, " * 714 + "ночь", "плохо, " * 1400),
    ("\"&'<" * 2500, "&" * 10_000),
    ("𝔄" * 10_000, "\U0001f980" * 10_000),
    ('chashka:request="{}" xmpNote:HasExtendedXMP="0"' + "&" * 9900, ""),
]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize(("prompt", "negative"), LONG)
def test_the_longest_requests_are_read_back(tmp_path: Path, suffix: str, prompt: str, negative: str) -> None:
    request = Options(prompt=prompt, negative_prompt=negative, negative_prior_prompt=negative, seed=1)
    longest = Picture(picture().pixels, 1, 0, request, (), "m", "kandinsky")
    path = images.save(longest, tmp_path / f"a{suffix}")
    assert images.read_metadata(path) == images.read_metadata(path.read_bytes()) == images.describe(longest)
    label = images.enlarged_label(path, 2, "m", (80, 48))
    assert label.own is not None and (label.parameters is None or "Size: 80x48" in label.parameters)
    for other in images.SUFFIXES.keys() - {".svg"}:
        again = images.save(images.Labelled(longest.pixels, label), tmp_path / f"b{other}")
        assert images.read_metadata(again) == images.describe(longest) | {"upscaled": [{"by": 2, "model": "m"}]}
    smaller = reencoded(path.read_bytes(), "jpeg" if suffix == ".jpg" else "webp", 50)
    assert suffix == ".png" or images.read_metadata(smaller) == images.describe(longest)


def test_a_jpeg_has_the_a1111_text_as_long_as_it_fits(tmp_path: Path) -> None:
    for prompt, there in (("a red cat, " * 900, True), ("𝔄" * 10_000, False)):
        drawn = replace(picture(), request=Options(prompt=prompt, negative_prompt=prompt[:9000], seed=1))
        parameters = told(images.save(drawn, tmp_path / "a.jpg")).parameters
        assert parameters == (images.a1111_parameters(drawn) if there else None)
        with Image.open(tmp_path / "a.jpg") as image:
            assert image.getexif()[0x0131] == f"chashka {chashka.__version__}"


def test_a_jpeg_whose_segments_are_damaged_is_read_without_them(tmp_path: Path) -> None:
    drawn = replace(picture(), request=Options(prompt="&" * 10_000, negative_prompt="&" * 10_000, seed=1))
    data = images.save(drawn, tmp_path / "a.jpg").read_bytes()
    name = b"http://ns.adobe.com/xmp/extension/\0"
    assert data.count(name) == 2
    second = data.rindex(name)
    other_offset = data[: second + 71] + (1).to_bytes(4, "big") + data[second + 75 :]
    for spoiled in (data.replace(b"amp;&amp;", b"amp;&amq;", 1), other_offset, data.replace(name, name.upper())):
        assert spoiled != data and images.read_metadata(spoiled) is None
        assert told(spoiled).source_type == "trainedAlgorithmicMedia"


def test_files_without_our_metadata_have_none(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert images.read_metadata(tmp_path / "a.png") is None


def test_equal_pictures_are_equal_files(tmp_path: Path) -> None:
    for suffix in set(images.SUFFIXES) - {".svg"}:  # traced ones need an extra: test_images_tracing.py
        first, second = (images.save(picture(), tmp_path / f"{i}{suffix}").read_bytes() for i in (1, 2))
        assert first == second


# --- what goes along when a picture is enlarged ----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("edited", [False, True])
def test_enlarged_pictures_tell_what_they_were(tmp_path: Path, suffix: str, edited: bool) -> None:
    drawn = picture(edited=edited)
    path = images.save(drawn, tmp_path / f"a{suffix}")
    label = images.enlarged_label(path, 2, "m", (80, 48))
    larger = images.save(images.Labelled(drawn.pixels.repeat(2, 0).repeat(2, 1), label), tmp_path / f"b{suffix}")
    step = {"by": 2, "model": "m"}
    assert images.read_metadata(larger) == images.describe(drawn) | {"upscaled": [step]}
    assert label.parameters == images.a1111_parameters(drawn).replace("Size: 40x24", "Size: 80x48")
    assert label.kind == ("compositeWithTrainedAlgorithmicMedia" if edited else "trainedAlgorithmicMedia")
    assert f"digitalsourcetype/{label.kind}".encode() in larger.read_bytes()
    again = images.enlarged_label(larger, 4, "n", (320, 192))
    assert json.loads(again.own or "")["upscaled"] == [step, {"by": 4, "model": "n"}]


def test_pictures_of_others_are_marked_as_altered_and_keep_a_model_s_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (4, 4)).save(path)
    assert images.enlarged_label(path, 2, "m", (8, 8)) == images.Label("algorithmicallyEnhanced")
    for kind, wanted in (("digitalCapture", "algorithmicallyEnhanced"), ("trainedAlgorithmicMedia",) * 2):
        packet = f"<x>http://cv.iptc.org/newscodes/digitalsourcetype/{kind}</x>".encode()
        Image.new("RGB", (4, 4)).save(path, xmp=packet)
        assert images.enlarged_label(path, 2, "m", (8, 8)) == images.Label(wanted)


@pytest.mark.parametrize("own", ['{"request": {"prompt": "\\ud800"}}', json.dumps({"a": '"<&' * 40_000}), "[1]", "{"])
def test_metadata_that_cannot_be_written_again_are_left_out(tmp_path: Path, own: str) -> None:
    info = PngInfo()
    info.add_text("chashka", own)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    label = images.enlarged_label(tmp_path / "a.png", 2, "m", (8, 8))
    assert label.own is None and label.parameters is None
    images.save(images.Labelled(picture().pixels, label), tmp_path / "b.jpg")


# --- writing ------------------------------------------------------------------------------------------------------------


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_pixels_survive_png(tmp_path: Path) -> None:
    assert np.array_equal(images.read(images.save(picture(), tmp_path / "a.png")), picture().pixels)


def test_jpeg_puts_transparency_on_white(tmp_path: Path) -> None:
    clear = Picture(np.zeros((16, 16, 4), np.uint8), 1, 0, Options(prompt="a", seed=1))
    assert images.read(images.save(clear, tmp_path / "a.jpg")).min() == 255


def test_a_new_picture_never_replaces_another(tmp_path: Path) -> None:
    folder = tmp_path / "новая" / "папка"
    names = [images.save_new(picture(), folder, "чашка-7-0").name for _ in range(3)]
    assert names == ["чашка-7-0.png", "чашка-7-0-2.png", "чашка-7-0-3.png"]
    assert left(folder) == sorted(names)


def test_save_new_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    names = [images.save_new(picture(), tmp_path, "a").name for _ in range(2)]
    assert names == ["a.png", "a-2.png"] and left(tmp_path) == sorted(names)


def test_pictures_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = images.save(picture(), tmp_path / "a.png")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("call", ["fsync", "replace", "link", "fdopen"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    old = images.save(picture(), tmp_path / "старая.png").read_bytes()

    def fail(*arguments: Any, **_: Any) -> Any:
        if call == "fdopen":
            os.close(arguments[0])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(FileError) as caught:
        if call == "link":
            images.save_new(picture(), tmp_path, "новая")
        else:
            images.save(picture(8, 8), tmp_path / "старая.png")
    monkeypatch.undo()
    assert os.strerror(code) in str(caught.value) and "\n" not in str(caught.value)
    assert left(tmp_path) == ["старая.png"]
    assert (tmp_path / "старая.png").read_bytes() == old


def test_a_write_that_stops_half_way_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Quota(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(bytes(data)[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fdopen", lambda handle, mode: Quota(handle, "wb"))
    with pytest.raises(FileError, match="No space left"):
        images.save(picture(), tmp_path / "a.png")
    assert left(tmp_path) == []


def test_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        images.save(picture(), tmp_path / "a.png")
    assert left(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "no folder" / "a.png", tmp_path / "file" / "a.png"):
        with pytest.raises(FileError) as caught:
            images.save(picture(), path)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileError):
        images.save_new(picture(), tmp_path / "file" / "sub", "a")


def test_what_is_not_a_regular_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(FileError, match="not a regular file"):
        images.save(picture(), tmp_path / "pipe.png")
    assert stat.S_ISFIFO((tmp_path / "pipe.png").stat().st_mode)


def test_an_unknown_suffix_lists_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'a\.tiff'.*\.png.*\.webp"):
        images.save(picture(), tmp_path / "a.tiff")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Космос внутри чайной чашки!", "космос-внутри-чайной-чашки"),
        ("../../etc/passwd", "etc-passwd"),
        ("  a\0b / c\\d:e ", "a-b-c-d-e"),
        ("🫖🫖", "picture"),
        ("猫 と 犬", "猫-と-犬"),
    ],
)
def test_slugs_are_plain_file_names(text: str, name: str) -> None:
    assert images.slug(text) == name


@given(st.lists(st.integers(0, 0x10FFFF), max_size=400).map(lambda points: "".join(map(chr, points))))
def test_slugs_fit_in_a_file_name(text: str) -> None:
    name = images.slug(text)
    assert (
        name and len(name.encode()) <= 100 and not set(name) & set('/\\:*?"<>|\0\n') and not name.startswith((".", "-"))
    )
