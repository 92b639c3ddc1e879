"""The gallery in the studio: search, favourites, endless loading, deleting with a way back, a picture's own view."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from conftest import Server

pytestmark = pytest.mark.extra
Visit = Callable[..., "Page"]
MANY = 60


def count(page: Page, number: int) -> None:
    """Wait until the grid has so many pictures."""
    expect(page.locator(".grid li")).to_have_count(number)


def test_search_finds_in_any_language(server: Server, visit: Visit) -> None:
    server.draw(prompt="рыжая лиса на снегу")
    server.draw(prompt="ein blauer Vogel")
    page = visit(server.url)
    count(page, 2)
    for words, found in (("ЛИСА", 1), ("лис", 1), ("vogel blauer", 1), ("лиса Vogel", 0), ("", 2)):
        page.fill("#search", words)
        count(page, found)
    page.fill("#search", "слон")
    page.get_by_text("Ничего не нашлось.").wait_for()
    expect(page.locator("[role=status][aria-live=polite]")).to_have_text("Найдено: 0 картинок")


def test_favourites_are_kept_and_filtered(server: Server, visit: Visit) -> None:
    server.draw(prompt="чашка", n=2)
    page = visit(server.url)
    count(page, 2)
    heart = page.locator("picture-tile.done").first.get_by_role("button", name="В избранном")
    heart.click()
    page.locator(".grid li.favourite").wait_for()
    page.get_by_role("button", name="Только избранное").click()
    count(page, 1)
    page.reload()
    count(page, 2)
    page.locator("picture-tile.done [aria-pressed=true]").wait_for()
    page.get_by_role("button", name="Только избранное").click()
    count(page, 1)
    page.locator(".grid button").click()
    page.locator("dialog").get_by_role("button", name="В избранном").click()
    count(page, 0)
    assert not server.http.get("/v1/images", params={"favourite": True}).json()["data"]


def test_the_grid_goes_on_as_far_as_one_looks(server: Server, visit: Visit) -> None:
    for number in range(MANY):
        out = io.BytesIO()
        Image.new("RGB", (64, 64), (number * 4, 120, 90)).save(out, "PNG")
        answer = server.http.post("/v1/images", files={"file": out.getvalue()}, headers={"X-Chashka": "test"})
        assert answer.status_code == 201, answer.text
    page = visit(server.url)
    count(page, 48)
    page.locator(".grid li").last.scroll_into_view_if_needed()
    count(page, MANY)
    ids = [one.get_attribute("data-id") for one in page.locator(".grid li").all()]
    assert len(set(ids)) == MANY


def test_deleting_has_a_way_back(server: Server, visit: Visit) -> None:
    job = server.draw(prompt="чашка", n=2)
    page = visit(server.url)
    count(page, 2)
    order = [one.get_attribute("data-id") for one in page.locator(".grid li").all()]
    page.locator(".grid button").first.focus()
    page.keyboard.press("Delete")
    count(page, 1)
    page.locator("picture-tile.gone").wait_for()
    assert len(server.http.get(f"/v1/jobs/{job['id']}").json()["pictures"]) == 1
    page.locator(".toast").get_by_role("button", name="Вернуть").click()
    count(page, 2)
    assert [one.get_attribute("data-id") for one in page.locator(".grid li").all()] == order
    assert page.locator("picture-tile.gone").count() == 0
    page.locator(".grid button").first.click()
    page.locator("dialog").get_by_role("button", name="Удалить").click()
    count(page, 1)
    page.keyboard.press("Control+z")
    count(page, 2)
    assert len(server.http.get("/v1/images").json()["data"]) == 2
    server.clear()
    page.reload()
    page.locator("#gallery .empty").wait_for()
    assert page.locator("job-card").count() == 0, "a job whose pictures are all deleted has nothing to show"


def test_a_picture_has_its_own_view(server: Server, visit: Visit) -> None:
    server.draw(prompt="зелёный чайник", n=2, seed=11, negative_prompt="люди")
    page = visit(server.url)
    count(page, 2)
    page.locator(".grid button").first.click()
    dialog = page.locator("dialog")
    dialog.locator("dl").wait_for()
    facts = dict(zip(dialog.locator("dt").all_inner_texts(), dialog.locator("dd").all_inner_texts(), strict=True))
    shown = {name: facts[name] for name in ("Модель", "Зерно", "Номер", "Размер", "Шаги", "Чего избегать")}
    assert shown == {
        "Модель": "kandinsky-teacup",
        "Зерно": "11",
        "Номер": "2",
        "Размер": "256 × 256",
        "Шаги": "2",
        "Чего избегать": "люди",
    }
    assert dialog.locator("img.whole").get_attribute("alt") == "зелёный чайник"
    dialog.locator("summary").click()
    assert '"seed": 11' in dialog.locator("pre").inner_text()
    first = page.evaluate("location.hash")
    dialog.get_by_role("button", name="Следующая картинка").click()
    expect(page).not_to_have_url(re.compile(first))
    assert dialog.get_by_role("button", name="Следующая картинка").is_hidden()
    second = page.evaluate("location.hash")
    page.reload()
    page.locator("dialog[open] h2").wait_for()
    assert page.evaluate("location.hash") == second
    page.locator("dialog").get_by_role("button", name="Закрыть").click()
    expect(page).to_have_url(re.compile("^[^#]*#?$"))  # the browser goes back in its own time
