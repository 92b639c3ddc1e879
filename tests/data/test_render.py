"""Rendering: drawings as they stand, clip art wherever it stands, and reasons for no picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
import resvg_py
from PIL import Image

from chashka.data.render import NotDrawn, render

pytestmark = pytest.mark.extra

PAGE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128">{}</svg>'


def extent(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """First and last column, first and last row of what is opaque."""
    rows, columns = np.nonzero(pixels[..., 3] > 127)
    return int(columns.min()), int(columns.max()), int(rows.min()), int(rows.max())


def raster(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGBA", (width, height), (200, 10, 10, 255)).save(stream, "PNG")
    return stream.getvalue()


def test_a_drawing_stays_where_its_page_has_it() -> None:
    pixels = render(PAGE.format('<path d="M16 32h64v16H16z" fill="#08f"/>'), 256)
    assert pixels.shape == (256, 256, 4) and pixels.dtype == np.uint8
    assert extent(pixels) == (32, 159, 64, 95)


def test_a_clip_fills_nine_tenths_of_the_square_and_stands_in_its_middle() -> None:
    page = '<svg xmlns="http://www.w3.org/2000/svg" width="210mm" height="297mm">{}</svg>'
    left, right, top, bottom = extent(render(page.format('<path d="M8 40h100v20H8z" fill="#08f"/>'), 256, free=True))
    assert right - left + 1 == pytest.approx(230, abs=4)
    assert left + right == pytest.approx(255, abs=4) and top + bottom == pytest.approx(255, abs=4)


def test_what_lies_outside_the_page_of_a_clip_stays_outside() -> None:
    left, right, top, bottom = extent(
        render(PAGE.format('<path d="M64 -500h64v999h-64z" fill="#080"/>'), 256, free=True)
    )
    assert bottom - top + 1 == pytest.approx(230, abs=4)
    assert right - left + 1 == pytest.approx(115, abs=4)


def test_alpha_is_premultiplied() -> None:
    pixels = render(PAGE.format('<path d="M9 9h100v100H9z" fill="#ff8000" opacity="0.5"/>'), 64)
    assert pixels[32, 32].tolist() == [pytest.approx(v, abs=1) for v in (128, 64, 0, 128)]
    assert pixels[0, 0].tolist() == [0, 0, 0, 0]


def test_letters_of_the_machine_are_never_drawn() -> None:
    with pytest.raises(NotDrawn, match="nearly empty"):
        render(PAGE.format('<text y="120" font-size="150">M</text>'), 64)


def test_rasters_fit_with_a_margin_and_never_grow() -> None:
    assert extent(render(raster(512, 512), 256)) == (10, 245, 10, 245)
    assert extent(render(raster(256, 264), 256)) == (10, 245, 10, 245)
    for too_small in (raster(100, 100), raster(300, 100)):
        with pytest.raises(NotDrawn, match="raster too small"):
            render(too_small, 256)
    with pytest.raises(NotDrawn, match="not a readable raster"):
        render(b"RIFF", 256)


@pytest.mark.parametrize(
    ("payload", "free", "reason"),
    [
        (PAGE.format(""), False, "nearly empty"),
        (PAGE.format('<path d="M9 9h9v9H9z"/>'), False, "nearly empty"),
        ("<svg <", False, "cannot be rendered"),
        (PAGE.format(""), True, "nearly empty"),
        (PAGE.format('<path d="M0 0h128v128H0z" fill="#808080"/>'), True, "nearly one colour"),
        (PAGE.format('<text y="9">a</text>'), True, "has text inside"),
        (PAGE.format('<image href="x.png"/>'), True, "has a raster inside"),
        (PAGE.replace('viewBox="0 0 128 128"', 'width="3furlong" height="2"'), True, "no page size"),
        (PAGE.replace('viewBox="0 0 128 128"', ""), True, "no page size"),
        (PAGE.replace("128 128", "0 128"), True, "no page size"),
        ("<svg", True, "not well-formed"),
        ("<html/>", True, "no SVG"),
    ],
)
def test_reasons_for_no_picture(payload: str, free: bool, reason: str) -> None:
    with pytest.raises(NotDrawn, match=reason):
        render(payload, 64, free)


def test_a_panic_of_the_renderer_is_a_reason_and_ctrl_c_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        """As pyo3's PanicException, which is no Exception."""

    def fail(error: type[BaseException]) -> None:
        def svg_to_bytes(**_: object) -> bytes:
            raise error

        monkeypatch.setattr(resvg_py, "svg_to_bytes", svg_to_bytes)

    fail(Panic)
    with pytest.raises(NotDrawn, match="cannot be rendered"):
        render(PAGE.format(""), 64)
    fail(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        render(PAGE.format(""), 64)
