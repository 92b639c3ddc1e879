"""Drawing in the studio: four pictures that form, cancel, reload, downloads, variations, starting from a picture."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from conftest import Server

pytestmark = pytest.mark.extra
Visit = Callable[..., "Page"]
CUP = "космос внутри чайной чашки"


def set_up(page: Page, **settings: Any) -> None:
    """Say settings in the drawer, and close it again."""
    page.click("[aria-controls=settings]")
    for name, value in settings.items():
        page.fill(f"#field-{name}", str(value))
    page.click("[aria-controls=settings]")
    assert page.is_hidden("#settings")


def draw(page: Page, prompt: str, **settings: Any) -> Locator:
    """Ask for pictures; the card of the job."""
    set_up(page, **settings)
    page.fill("#prompt", prompt)
    page.click("button.draw")
    card = page.locator("job-card", has_text=prompt).first
    card.wait_for()
    return card


def boxes(page: Page) -> list[list[float]]:
    """Where the places of the pictures are, and where the gallery begins: left, top and width."""
    found = [one.bounding_box() for one in page.locator("picture-tile .frame, #gallery").all()]
    return [[box["x"], box["y"], box["width"]] for box in found if box is not None]


SOFTNESS = """() => {
    const seen = new Map();
    window.softness = seen;
    const look = () => {
        const soft = document.querySelector("picture-tile .preview:not([hidden])")?.style.filter;
        const step = document.querySelector("job-card .state")?.textContent.match(/^Шаг (\\d+) из/);
        if (step && soft) seen.set(Number(step[1]), parseFloat(soft.slice(5)));
        requestAnimationFrame(look);
    };
    look();
}"""
"""Notes in every frame how soft the first preview is, in pixels, by the step that the card tells: a test that asks now and then
would miss the last steps of a quick machine."""


def test_four_pictures_form_and_nothing_moves(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    page.evaluate(SOFTNESS)
    card = draw(page, CUP, steps=20)  # enough for a quick machine to be seen at
    tiles = card.locator("picture-tile")
    assert tiles.count() == 4
    before = boxes(page)
    assert len(before) == 5
    assert tiles.count() == page.locator("picture-tile").count()
    page.locator("picture-tile.forming").nth(3).wait_for()
    assert card.locator("progress").get_attribute("aria-label") == "Рисунок"
    assert boxes(page) == before
    page.locator("picture-tile.done .final.shown").nth(3).wait_for()
    page.locator("job-card.over progress.over").wait_for(state="hidden")
    assert boxes(page) == before
    softness = dict(page.evaluate("[...window.softness]"))
    assert len(softness) > 3 and max(softness) > 10, softness
    steps = sorted(softness)
    assert 0 < softness[steps[-1]] < softness[steps[0]]
    pictures = tiles.locator("img.final")
    assert {one.get_attribute("alt") for one in pictures.all()} == {CUP}
    assert page.evaluate("[...document.querySelectorAll('img.final')].every((one) => one.naturalWidth === 256)")
    page.locator(".grid li").nth(3).wait_for()
    assert page.locator(".grid li").count() == 4
    expect(page.locator("[role=status][aria-live=polite]")).to_have_text("Готово: 4 картинки")
    assert server.http.get("/v1/jobs", params={"limit": 1}).json()["data"][0]["fields"]["n"] == 4


def test_cancel_ends_the_job_and_says_so(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    card = draw(page, "маяк", steps=150)
    page.locator("picture-tile.forming").first.wait_for()
    card.get_by_role("button", name="Отменить").click()
    page.locator("job-card.over").wait_for()
    assert card.locator(".state").inner_text() == "Отменено"
    job = server.http.get("/v1/jobs", params={"limit": 1}).json()["data"][0]
    assert (job["state"], job["pictures"]) == ("canceled", [])
    assert page.locator("picture-tile.empty").count() == 4


def test_a_reload_keeps_what_is_drawn_and_what_was(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    draw(page, "синяя птица", steps=14, n=2)
    page.locator("picture-tile.forming").first.wait_for()
    page.fill("#prompt", "ещё не сказано")
    page.reload()
    assert page.locator("job-card .words").inner_text() == "синяя птица"
    page.locator("job-card:not(.over) picture-tile.forming").first.wait_for()
    page.locator("job-card.over img.final.shown").nth(1).wait_for()
    page.reload()
    page.locator("job-card.over img.final.shown").nth(1).wait_for()
    page.locator(".grid li").nth(1).wait_for()
    assert page.input_value("#prompt") == "ещё не сказано"
    assert page.input_value("#field-steps") == "14"


def test_jobs_wait_for_each_other_and_the_last_one_stays(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    draw(page, "жёлтый дом", steps=6, n=1)
    draw(page, "зелёный дом", steps=2, n=1)
    expect(page.locator(".grid li")).to_have_count(2)
    expect(page.locator("job-card:not(.over)")).to_have_count(0)
    page.reload()
    page.locator("job-card").first.wait_for()
    assert page.locator("job-card .words").all_inner_texts() == ["зелёный дом"]


def test_a_card_that_waits_shows_its_place_as_it_changes(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    long = {"prompt": "a cup", "n": 4, "steps": 150}
    before = [server.http.post("/v1/jobs", json=long).raise_for_status().json()["id"] for _ in range(10)]
    draw(page, "зелёный дом", steps=2, n=1)
    state = page.locator("job-card .state").first
    expect(state).to_have_text(re.compile(r"Ждёт: (\d+)-й в очереди"))
    waiting = server.http.get("/v1/jobs", params={"state": "queued"}).json()["data"]
    (job,) = (one for one in waiting if one["fields"]["prompt"] == "зелёный дом")
    for id in reversed(before[-3:]):  # of those that wait, the last ones
        position = server.http.get(f"/v1/jobs/{job['id']}").json()["position"]
        expect(state).to_have_text(f"Ждёт: {position}-й в очереди")
        server.http.post(f"/v1/jobs/{id}/cancel", json={}).raise_for_status()
        expect(state).to_have_text(f"Ждёт: {position - 1}-й в очереди")


def fetched(page: Page, link: Locator) -> tuple[str, Image.Image, bytes]:
    """What a link gives: the file's name, the picture, the bytes."""
    with page.expect_download() as download:
        link.click()
    data = download.value.path().read_bytes()
    image = Image.open(io.BytesIO(data))
    image.load()
    return download.value.suggested_filename, image, data


def test_downloads_with_and_without_background(server: Server, visit: Visit) -> None:
    server.draw(prompt="красный гриб!", steps=8, seed=7)
    page = visit(server.url)
    links = page.locator("picture-tile.done a.download")
    name, clear, data = fetched(page, links.nth(0))
    assert (name, clear.format, clear.mode, clear.size) == ("красный-гриб.png", "PNG", "RGBA", (256, 256))
    alpha = clear.getchannel("A")
    assert alpha.getextrema() == (0, 255)
    name, white, marked = fetched(page, links.nth(1))
    assert (name, white.format, white.mode, white.size) == ("красный-гриб.jpg", "JPEG", "RGB", (256, 256))
    behind = np.asarray(white)[np.asarray(alpha) == 0]
    assert len(behind) > 1000
    assert (behind.min(1) >= 250).mean() > 0.98
    for file in (data, marked):  # neither loses its mark of origin
        assert b"trainedAlgorithmicMedia" in file


def test_again_with_another_seed_and_variations(server: Server, visit: Visit) -> None:
    first = server.draw(prompt="рыжая лиса", seed=5)
    page = visit(server.url)
    page.get_by_role("button", name="Ещё раз с другим зерном").click()
    expect(page.locator(".grid li")).to_have_count(2)
    again = server.http.get("/v1/jobs", params={"limit": 1}).json()["data"][0]
    assert again["fields"] | {"seed": 5} == first["fields"]
    assert again["fields"]["seed"] != 5
    set_up(page, steps=2, n=2)
    page.locator("picture-tile.done").first.get_by_role("button", name="Вариации этой картинки").click()
    expect(page.locator(".grid li")).to_have_count(4)
    varied = server.http.get("/v1/jobs", params={"limit": 1}).json()["data"][0]
    assert (varied["kind"], varied["parents"]) == ("vary", {"init": again["pictures"][0]["id"]})
    assert page.locator("job-card .words").first.inner_text() == "Вариации картинки"
    page.locator(".grid button").first.click()
    page.locator("dialog .relatives button").first.wait_for()
    assert page.locator("dialog h3").all_inner_texts() == ["Сделано из"]
    page.locator("dialog .relatives button").first.click()
    page.locator("dialog h2", has_text="рыжая лиса").wait_for()
    page.get_by_text("Сделано из неё").wait_for()


def test_a_given_picture_starts_a_drawing(server: Server, visit: Visit) -> None:
    page = visit(server.url, expected=("status of 422",))
    out = io.BytesIO()
    Image.new("RGB", (256, 256), "#3366cc").save(out, "PNG")
    page.set_input_files("input[type=file]", {"name": "синий.png", "mimeType": "image/png", "buffer": out.getvalue()})
    page.locator(".chip").wait_for()
    page.select_option("#strength", "subtle")
    draw(page, "синее море", steps=4, n=1)
    page.locator("job-card.over img.final.shown").wait_for()
    assert page.is_hidden(".chip")
    job = server.http.get("/v1/jobs", params={"limit": 1}).json()["data"][0]
    assert list(job["parents"]) == ["init"]
    assert job["fields"]["strength"] == 0.5
    page.locator("job-card .open").drag_to(page.locator("#prompt"))
    page.locator(".chip").wait_for()
    page.set_input_files("input[type=file]", {"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.get_by_role("alert").filter(has_text="Этот файл не подошёл").wait_for()


def test_what_is_wrong_is_said_in_one_line(server: Server, visit: Visit) -> None:
    page = visit(server.url, expected=("status of 422", "ERR_FAILED"))
    newest = server.http.get("/v1/jobs", params={"limit": 1}).json()["data"]
    page.click("button.draw")
    problem = page.locator(".composer > .problem")
    assert problem.inner_text() == "Напишите, что нарисовать, например одной короткой фразой."
    page.fill("#prompt", "дом")
    page.click("[aria-controls=settings]")
    page.fill("#field-n", "17")
    assert page.locator("#wrong-n").inner_text() == "Можно от 1 до 16"
    page.click("[aria-controls=settings]")
    page.click("button.draw")
    assert page.evaluate("document.activeElement.id") == "field-n"
    page.fill("#field-n", "1")
    page.fill("#field-negative_prompt", "а" * 10_001)
    page.click("button.draw")
    problem.filter(has_text="«Чего избегать»: так нельзя.").filter(has_text="Можно не больше 10 000 знаков.").wait_for()
    page.fill("#field-negative_prompt", "")
    page.route("**/v1/jobs", lambda route: route.abort())
    page.click("button.draw")
    problem.filter(has_text="Сервер не отвечает").wait_for()
    page.unroute("**/v1/jobs")
    assert server.http.get("/v1/jobs", params={"limit": 1}).json()["data"] == newest


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"prompt": "x", "steps": 0}, "«Шаги»: так нельзя. Дано: 0; можно от 1 до 1000."),
        ({"prompt": "x", "steps": 999}, "«Шаги»: так нельзя. Дано: 999; можно не больше 150."),
        ({"prompt": "x", "n": 99}, "«Картинок»: так нельзя. Дано: 99; можно от 1 до 64."),
        ({"prompt": "а" * 20001}, "«Что нарисовать»: так нельзя."),
        ({"prompt": "x", "kind": "x"}, "Так нельзя."),
    ],
)
def test_limits_are_told_in_the_pages_language(server: Server, visit: Visit, said: dict[str, Any], told: str) -> None:
    """What a page of today's server would not send."""
    page = visit(server.url, expected=("status of 422",))
    tell = """async (said) => {
      const [{ api }, { tell }] = await Promise.all([import('/web/api.js'), import('/web/failures.js')]);
      const place = document.createElement('p');
      await api.submit(said).catch((error) => tell(place, error));
      return place.innerText;
    }"""
    assert page.evaluate(tell, said).startswith(told)


def test_words_stay_words(server: Server, visit: Visit) -> None:
    said = '<img src=x onerror="window.broken = 1"> & <b>"чашка"</b>'
    server.draw(prompt=said)
    page = visit(server.url)
    assert page.locator("job-card .words").inner_text() == said
    page.locator(".grid button").first.click()
    assert page.locator("dialog h2").inner_text() == said
    assert page.evaluate("window.broken") is None
