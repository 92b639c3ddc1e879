"""Where a file comes from: every kind of verdict, the three levels of privacy, other formats, and what looks the same."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from chashka import images
from chashka.app.jobs import NewPicture
from chashka.app.keeping.made import Made
from chashka.app.keeping.marks import KINDS, dhash, verify
from chashka.app.store import Store
from chashka.errors import FileError, InputError
from chashka.images import metadata
from chashka.images.pixels import flatten
from chashka.images.privacy import LEVELS, format_of, label_in, limited, with_privacy
from chashka.request import Picture, Request
from foreign_files import A1111, EVERY, PROMPT, png, png_chunk, with_exif

FORMATS = ("png", "jpeg", "webp")


def pixels(seed: int = 0) -> NDArray[np.uint8]:
    """Something like a drawing: soft blobs on nothing, uint8 (64, 64, 4)."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 255, (6, 6, 4), np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
    return np.asarray(small)


def drawn(suffix: str = ".png", seed: int = 0, edited: bool = False) -> bytes:
    request = Request(prompt="кот с чашкой", seed=7, steps=4, negative_prompt="туман")
    picture = Picture(pixels(seed), 7, 0, request, model="teacup", family="kandinsky", edited=edited)
    from chashka.images.writing import encode

    return encode(picture.pixels, metadata.label_of(picture), Path(f"a{suffix}"))


def stripped(data: bytes, format: str = "PNG", **options: Any) -> bytes:
    """The same picture without any metadata, saved by another program."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        plain = flatten(np.asarray(image)) if format == "JPEG" else np.asarray(image)
        Image.fromarray(plain).save(out, format, **options)
    return out.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.at(tmp_path / "log.sqlite3")
    yield made
    made.close()


def keep(store: Store, data: bytes, **values: Any) -> str:
    sum = hashlib.sha256(data).hexdigest()
    plain = NewPicture(0, sum, sum, "image/png", 64, 64, len(data), dhash(images.read(data)), "кот")
    return store.pictures.add(replace(plain, **values), "local").id


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_drawn_file_tells_everything(suffix: str) -> None:
    verdict = verify(drawn(suffix))
    assert (verdict.kind, verdict.by_model, verdict.logged) == ("full", True, False)
    assert verdict.details["request"]["prompt"] == "кот с чашкой"
    assert "teacup" in verdict.message and "\n" not in verdict.message


def test_the_log_knows_the_file_too(store: Store) -> None:
    data = drawn()
    id = keep(store, data)
    verdict = verify(data, store)
    assert (verdict.kind, verdict.logged, verdict.picture) == ("full", True, id)


@pytest.mark.parametrize("format", FORMATS)
def test_the_mark_alone_says_that_a_model_made_it_and_with_what(format: str) -> None:
    data, media_type = with_privacy(drawn(), "provenance", format)
    assert media_type == f"image/{format}" and format_of(data) == format
    for secret in ("кот", "туман", "teacup", "Steps"):
        assert secret.encode() not in data and secret.encode("utf-16-be") not in data
    verdict = verify(data)
    assert (verdict.kind, verdict.by_model, verdict.details) == ("mark", True, {})
    assert verdict.program.startswith("chashka ") and verdict.source_type == metadata.TRAINED


@pytest.mark.parametrize("format", FORMATS)
def test_without_anything_only_the_log_knows(store: Store, format: str) -> None:
    data, _ = with_privacy(drawn(), "none", format)
    said = metadata.told(data)
    assert (said.text, said.packet, said.parameters) == (None, "", None)
    with Image.open(io.BytesIO(data)) as image:
        assert not image.getexif() and "chashka" not in str(image.info)
    assert verify(data).kind == verify(data, store).kind == "unknown"
    sum = hashlib.sha256(data).hexdigest()
    store.pictures.log(sum, dhash(images.read(data)), None, "none")
    assert (verify(data, store).kind, verify(data, store).by_model) == ("logged", True)


def test_what_looks_the_same_is_recognised(store: Store) -> None:
    for seed in range(20):
        id = keep(store, drawn(seed=seed))
    data = drawn(seed=19)
    for copy in (stripped(data, "JPEG", quality=70), stripped(data, "WEBP", quality=60)):
        verdict = verify(copy, store)
        assert (verdict.kind, verdict.picture, verdict.by_model) == ("alike", id, True)
        assert verdict.distance is not None and verdict.distance <= 5
    assert verify(stripped(drawn(seed=77)), store).kind == "unknown"


def test_empty_pictures_look_like_nothing(store: Store) -> None:
    plain = stripped(png())
    keep(store, plain + b"x", sha256="0" * 64)
    assert verify(plain, store).kind == "unknown"


def test_uploads_are_not_ours(store: Store) -> None:
    """They are logged when they are sent back, and still nobody made them here."""
    data = stripped(drawn(seed=3))
    id = keep(store, data, source="uploaded")
    store.pictures.log(hashlib.sha256(data).hexdigest(), dhash(images.read(data)), id, "full")
    assert verify(data, store).kind == "unknown"


@pytest.mark.parametrize("name", EVERY)
def test_other_programs_are_named(name: str) -> None:
    verdict = verify(EVERY[name])
    assert (verdict.kind, verdict.program) == ("foreign", name.split()[0]) and verdict.by_model is True


def test_other_makers_marks() -> None:
    camera = metadata.xmp(metadata.Label("digitalCapture", tool="Camera 1")).decode()
    verdict = verify(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + camera.encode()))
    assert (verdict.kind, verdict.source_type, verdict.by_model) == ("marked", "digitalCapture", None)
    signed = verify(png_chunk(b"caBX", b"\0\0\0\x10jumb"))
    assert (signed.kind, signed.credentials) == ("marked", True)
    assert verify(with_exif("JPEG", {0x010F: "Canon"})).kind == "unknown"


def test_no_picture_is_an_error() -> None:
    for data in (b"", b"text", b"\x89PNG\r\n\x1a\nbroken"):
        with pytest.raises(FileError):
            verify(data)


def test_verdicts_have_the_kinds_that_are_documented() -> None:
    assert set(KINDS) == {"full", "mark", "logged", "alike", "foreign", "marked", "unknown"}


# Privacy and formats.


def test_everything_in_its_own_format_is_the_same_bytes() -> None:
    for suffix in (".png", ".jpg", ".webp"):
        data = drawn(suffix)
        assert with_privacy(data, "full")[0] is data


@pytest.mark.parametrize("format", FORMATS)
def test_another_format_keeps_what_the_file_said(format: str) -> None:
    data, _ = with_privacy(drawn(edited=True), "full", format)
    assert images.read_metadata(data) == images.read_metadata(drawn(edited=True))
    verdict = verify(data)
    assert (verdict.kind, verdict.source_type) == ("full", metadata.COMPOSED)


@pytest.mark.parametrize("level", LEVELS)
def test_a_png_keeps_every_pixel(level: str) -> None:
    data, _ = with_privacy(drawn(), level, "png")
    assert (images.read(data) == images.read(drawn())).all()


def test_other_programs_words_go_along_and_their_pictures_get_a_mark() -> None:
    data, _ = with_privacy(png(parameters=A1111), "full", "webp")
    verdict = verify(data)
    assert (verdict.kind, verdict.program) == ("foreign", "AUTOMATIC1111")
    assert verdict.details["prompt"].startswith(PROMPT) and verdict.source_type == metadata.TRAINED
    bare, _ = with_privacy(png(parameters=A1111), "provenance", "jpeg")
    assert PROMPT.encode("utf-16-be") not in bare
    assert verify(bare).source_type == metadata.TRAINED


@pytest.mark.parametrize("level", LEVELS)
def test_a_photograph_is_never_marked_as_made_by_a_model(level: str) -> None:
    """And what the camera wrote does not go into new files."""
    photo = with_exif("JPEG", {0x010F: "Canon"}, b"ASCII\0\0\0my home")
    assert label_in(photo) is None
    data, _ = with_privacy(photo, level, "png")
    assert verify(data).kind == "unknown" and b"Canon" not in data and b"my home" not in data


def test_levels_and_formats_that_do_not_exist() -> None:
    with pytest.raises(InputError, match="privacy: 'secret' is not possible; allowed: full, provenance, none"):
        with_privacy(drawn(), "secret")
    with pytest.raises(InputError, match="format: 'svg' is not possible for this picture; allowed: png, jpeg, webp"):
        with_privacy(drawn(), "full", "svg")
    with pytest.raises(InputError, match="no picture"):
        with_privacy(b"GIF89a", "none")
    assert limited(None, "full") is None


@pytest.mark.parametrize(
    ("before", "sign", "after", "kind"),
    [
        (b'{"request": {"prompt": "', b"x" * 200_000, b'"}}', "full"),
        (b'{"request": {"prompt": "', b"&" * 200_000, b'"}}', "mark"),
        (b'{"version": "', b"x" * 200_000, b'"}', "full"),
    ],
)
def test_a_huge_label_of_a_file_is_left_out_rather_than_failing(
    before: bytes, sign: bytes, after: bytes, kind: str
) -> None:
    data = png_chunk(b"tEXt", b"chashka\0" + before + sign + after)
    again, _ = with_privacy(data, "full", "jpeg")
    assert verify(again).kind == kind


def test_what_commands_made_is_known_by_its_looks(tmp_path: Path, store: Store) -> None:
    """Beside the store's log or without it; the nearer of both is named."""
    made, file = Made(tmp_path / "data"), drawn(seed=3)
    assert verify(stripped(file), made=made).kind == "unknown"
    made.add(stripped(file), pixels(3))
    made.add(drawn(seed=4), pixels(4))
    very, changed = stripped(file), stripped(file, "WEBP", quality=50)
    for log in (None, store):
        assert (verify(very, log, made).kind, verify(very, log, made).logged) == ("logged", True)
        found = verify(changed, log, made)
        assert (found.kind, found.picture, found.by_model) == ("alike", None, True)
        assert found.distance is not None and found.distance <= 5
        assert verify(stripped(drawn(seed=5)), log, made).kind == "unknown"
