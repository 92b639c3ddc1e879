"""Sketches in the studio: what is typed is seen, costs no job, and is about what will be drawn."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page, Response

    from conftest import Server

pytestmark = pytest.mark.extra
Visit = Callable[..., "Page"]
SHOWN = "studio-sketch:not(.stale) img:not([hidden])"


def test_what_is_typed_is_sketched_and_then_drawn(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    asked: list[Response] = []
    page.on("response", lambda answer: asked.append(answer) if answer.url.endswith("/v1/sketches") else None)
    jobs = server.http.get("/v1/jobs").json()["data"]
    page.locator("#gallery .empty").wait_for()  # the last thing that a page loads
    where = page.locator(".grid, #gallery").first.bounding_box()
    page.locator("#prompt").press_sequentially("красное яблоко", delay=20)
    page.locator(SHOWN).wait_for()
    assert [answer.status for answer in asked][-1] == 200 and len(asked) <= 4, "it waits until the typing rests"
    assert page.locator(".grid, #gallery").first.bounding_box() == where, "nothing moves"
    expect(page.locator(SHOWN)).to_have_attribute("alt", "Набросок того, что вы пишете")
    assert page.evaluate("document.querySelector('studio-sketch img').naturalWidth") == 256
    said = asked[-1].request.post_data_json
    seed = said["seed"]
    assert server.http.get("/v1/jobs").json()["data"] == jobs, "it is no job"
    page.locator("#prompt").press_sequentially(" на столе", delay=20)
    page.locator(SHOWN).wait_for()
    assert asked[-1].request.post_data_json["seed"] == seed, "the same picture goes on"
    page.fill("#prompt", "красное яблоко")
    page.locator(SHOWN).wait_for()
    page.click("button.draw")
    expect(page.locator("studio-sketch")).to_be_hidden()
    page.locator("picture-tile.done .final.shown").nth(3).wait_for()
    job = server.http.get("/v1/jobs", params={"limit": 1}).json()["data"][0]
    assert job["fields"]["seed"] == seed
    drawn = [server.http.get(one["url"]).content for one in sorted(job["pictures"], key=lambda one: one["index"])]
    sketches = [
        server.http.post("/v1/sketches", json=said | {"first": index}).raise_for_status().content for index in range(4)
    ]
    apart = np.array([[distance(sketch, picture) for picture in drawn] for sketch in sketches])
    others = apart[~np.eye(4, dtype=bool)]
    assert np.diag(apart).mean() < others.mean(), (
        "pictures look like their own sketches; one of four may be another's by chance"
    )


def distance(a: bytes, b: bytes) -> float:
    """Between two files with alpha, on white: the root of the mean square."""
    flat = []
    for data in (a, b):
        picture = Image.open(io.BytesIO(data)).convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        flat.append(np.asarray(Image.alpha_composite(white, picture).convert("RGB"), np.float32))
    return float(np.sqrt(np.square(flat[0] - flat[1]).mean()))


def test_it_can_be_switched_off_and_starts_with_no_picture(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/v1/sketches" in request.url else None)
    page.click("[aria-controls=settings]")
    box = page.locator("#field-sketches")
    expect(box).to_be_checked()
    box.uncheck()
    page.locator("#prompt").press_sequentially("кот", delay=20)
    page.wait_for_timeout(700)
    assert not asked and page.locator("studio-sketch").is_hidden()
    page.reload()
    page.click("[aria-controls=settings]")
    expect(box).not_to_be_checked()
    page.click("text=Вернуть обычные")
    expect(page.locator("#field-sketches")).to_be_checked()
    page.fill("#prompt", "")
    page.wait_for_timeout(500)
    assert not asked, "an empty field has no sketch"
