"""The studio for everybody: two languages, the keyboard alone, screen readers (axe), small screens, and nobody else's scripts."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from conftest import Server

pytestmark = pytest.mark.extra
Visit = Callable[..., "Page"]
WEB = Path(__file__).parents[2] / "src" / "chashka" / "app" / "web"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SAID = """
() => {
  const own = (element) => !element.closest('[translate=no], [lang]:not(html), noscript, script, style');
  const texts = [document.title];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) if (own(walk.currentNode.parentElement)) texts.push(walk.currentNode.data);
  for (const element of document.querySelectorAll('*')) {
    if (!own(element)) continue;
    for (const name of ['aria-label', 'title', 'placeholder', 'alt']) texts.push(element.getAttribute(name) ?? '');
  }
  return texts.map((text) => text.trim()).filter(Boolean);
}
"""
"""Everything that the page says itself: texts that people wrote are marked ``translate=no``."""
NAMES = re.compile(r"chashka keys add|chashka|chk_|PNG|JPEG|JPG|WebP|Enter|Shift|Delete|Ctrl|JavaScript|\bZ\b")
PROMPT = "a cup / чашка"


@pytest.fixture(scope="module")
def locked(running: Server, tmp_path_factory: pytest.TempPathFactory, graphs: Path) -> Iterator[tuple[Server, str]]:
    """Another server, and the one key that opens it."""
    server = type(running)(tmp_path_factory.mktemp("locked") / "data", graphs)
    try:
        said = {"name": "студия", "scopes": ["generate", "read"]}
        yield server, server.http.post("/v1/keys", json=said).raise_for_status().json()["secret"]
    finally:
        server.close()


def everything(page: Page) -> Iterator[str]:
    """The page in all its states, one after the other: the name of each."""
    expect(page.locator(".grid li")).to_have_count(2)
    yield "page"
    page.click("[aria-controls=settings]")
    page.fill("#field-n", "99")
    yield "drawer"
    page.fill("#field-n", "")
    page.click("[aria-controls=settings]")
    page.fill("#search", "zzz")
    page.locator(".empty > span").wait_for()
    yield "nothing found"
    page.fill("#search", "")
    expect(page.locator(".grid li")).to_have_count(2)
    page.locator(".grid button").first.click()
    page.locator("dialog dl").wait_for()
    yield "dialog"
    page.keyboard.press("Delete")
    page.locator(".toast").wait_for()
    yield "toast"
    page.locator(".toast button").first.click()
    expect(page.locator(".grid li")).to_have_count(2)


def test_both_languages_have_the_same_phrases(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    told = """async () => {
      const all = await Promise.all(['ru', 'en'].map((code) => import(`/web/${code}.js`)));
      return all.map((one) => Object.fromEntries(Object.entries(one.default).map(([key, phrase]) => [key, phrase.length])));
    }"""
    russian, english = page.evaluate(told)
    assert russian.keys() == english.keys()
    code = "".join(path.read_text(encoding="utf-8") for path in WEB.glob("*.js") if path.stem not in ("ru", "en"))
    made = re.findall(r"`([a-z.]+\.)\$\{", code)  # keys that are put together: job.${state}
    assert not [key for key in english if f"'{key}'" not in code and not key.startswith(tuple(made))]
    used = set(re.findall(r"(?:\bt|label|hint|placeholder): \[?'([^']+)'", code))
    assert used <= english.keys()


@pytest.mark.parametrize(("locale", "foreign"), [("ru-RU", "[A-Za-z]{2,}"), ("en-GB", "[А-Яа-яЁё]")])
def test_everything_is_said_in_the_chosen_language(server: Server, visit: Visit, locale: str, foreign: str) -> None:
    server.draw(prompt=PROMPT, n=2)
    page = visit(server.url, locale=locale)
    for state in everything(page):
        left = [text for text in page.evaluate(SAID) if re.search(foreign, NAMES.sub("", text))]
        assert not left, (state, left)


def test_the_language_changes_at_once_and_stays(server: Server, visit: Visit) -> None:
    server.draw(prompt=PROMPT, n=2)
    page = visit(server.url, locale="de-DE")
    assert page.locator("h1").inner_text() == "What shall we draw?"
    page.click("[aria-controls=settings]")
    page.get_by_role("button", name="Switch to Russian").click()
    assert page.locator("h1").inner_text() == "Что нарисовать?"
    left = [text for text in page.evaluate(SAID) if re.search("[A-Za-z]{2,}", NAMES.sub("", text))]
    assert not left
    assert page.evaluate("document.documentElement.lang") == "ru"
    page.reload()
    assert page.locator("h1").inner_text() == "Что нарисовать?"


def test_everything_can_be_done_with_the_keyboard(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    assert page.evaluate("document.activeElement.id") == "prompt"
    keys = page.keyboard
    keys.type("лодка")
    keys.press("Shift+Enter")
    keys.type("на озере")
    page.locator("#field-n").wait_for(state="attached")
    tab_to(page, "[aria-controls=settings]")
    keys.press("Enter")
    for name, value in (("n", "2"), ("steps", "150")):
        tab_to(page, f"#field-{name}")
        keys.type(value)
    keys.press("Enter")  # in a form's field Enter sends it
    page.locator("picture-tile.forming").first.wait_for()
    keys.press("Escape")
    expect(page.locator("job-card .state")).to_have_text("Отменено")
    tab_to(page, "#field-steps", back=True)
    keys.press("Control+a")
    keys.type("2")
    keys.press("Enter")
    expect(page.locator(".grid li")).to_have_count(2)
    assert server.http.get("/v1/jobs", params={"limit": 1}).json()["data"][0]["fields"]["prompt"] == "лодка\nна озере"
    tab_to(page, ".grid button")
    first = focused(page)
    keys.press("ArrowRight")
    assert focused(page) != first
    keys.press("Home")
    assert focused(page) == first
    keys.press("Enter")
    page.locator("dialog dl").wait_for()
    keys.press("ArrowRight")
    expect(page).to_have_url(re.compile("#pic_"))
    tab_to(page, "dialog .tools [data-favourite]")
    keys.press("Space")
    expect(page.locator("dialog .tools [aria-pressed=true]")).to_have_count(1)
    keys.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert focused(page) == first
    keys.press("Delete")
    expect(page.locator(".grid li")).to_have_count(1)
    keys.press("Control+z")
    expect(page.locator(".grid li")).to_have_count(2)


def focused(page: Page) -> str:
    """The picture whose button has the focus."""
    return str(page.evaluate("document.activeElement.closest('li')?.dataset.id"))


def tab_to(page: Page, selector: str, *, back: bool = False) -> None:
    """Press Tab until the focus is there; it has to be seen everywhere on the way."""
    seen = """(selector) => {
      const element = document.activeElement;
      const shown = getComputedStyle(element);
      const card = element.id === 'prompt';
      return [element.matches(selector), card || shown.outlineStyle !== 'none' || element === document.body, element.outerHTML];
    }"""
    for _ in range(60):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        there, visible, what = page.evaluate(seen, selector)
        assert visible, what[:200]
        if there:
            return
    pytest.fail(f"Tab does not reach {selector}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(server: Server, visit: Visit, scheme: str) -> None:
    server.draw(prompt=PROMPT, n=2)
    page = visit(server.url, color_scheme=scheme, reduced_motion="reduce")
    page.locator("img.final.shown").nth(1).wait_for()
    for state in everything(page):
        checked(page, state)


def checked(page: Page, state: str) -> None:
    """Fail with what axe finds in the page as it is."""
    if not page.evaluate("window.axe !== undefined"):
        page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found: dict[str, Any] = page.evaluate("(tags) => axe.run(document, { runOnly: tags })", RULES)
    wrong = [(one["id"], one["help"], [node["target"] for node in one["nodes"]]) for one in found["violations"]]
    assert not wrong, (state, wrong)
    assert len(found["passes"]) > 15, state


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_locked_studio_opens_with_its_key(locked: tuple[Server, str], visit: Visit, scheme: str) -> None:
    server, key = locked
    page = visit(server.url, color_scheme=scheme, expected=("status of 401",))
    page.locator("studio-login h1").wait_for()
    checked(page, "login")
    left = [text for text in page.evaluate(SAID) if re.search("[A-Za-z]{2,}", NAMES.sub("", text))]
    assert not left
    page.keyboard.type("chk_wrong")
    page.keyboard.press("Enter")
    page.get_by_text("Этот ключ не подходит.").wait_for()
    page.fill("#key", key)
    page.keyboard.press("Enter")
    page.locator("#prompt").wait_for()
    page.get_by_text("Здесь будут храниться ваши картинки.").wait_for()
    assert key not in str(
        page.evaluate("[JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.cookie]")
    )
    page.reload()
    page.locator("#prompt").wait_for()
    page.locator("#field-model").wait_for(state="attached")
    page.get_by_role("button", name="Выйти").click()
    page.locator("studio-login h1").wait_for()
    page.reload()
    page.locator("studio-login h1").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_shared_studio_asks_before_it_uploads(
    tmp_path: Path, running: Server, graphs: Path, visit: Visit, scheme: str
) -> None:
    add = [str(Path(sys.executable).parent / "chashka"), "keys", "add", "студия", "--data", str(tmp_path / "data")]
    key = subprocess.run(add, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    server = type(running)(tmp_path / "data", graphs, "--policy", "shared")
    server.http.headers["Authorization"] = f"Bearer {key}"
    try:
        page = visit(server.url, color_scheme=scheme, expected=("status of 401", "status of 403"))
        page.fill("#key", key)
        page.keyboard.press("Enter")
        page.locator("#prompt").wait_for()
        out = io.BytesIO()
        Image.new("RGB", (64, 64), "#3366cc").save(out, "PNG")
        given = {"name": "море.png", "mimeType": "image/png", "buffer": out.getvalue()}
        page.set_input_files("input[type=file]", given)
        page.get_by_text("никого нельзя узнать").wait_for()
        assert page.evaluate("document.activeElement.id") == "consent"
        checked(page, "consent")
        page.get_by_role("button", name="Не загружать эту картинку").click()
        assert page.is_hidden("studio-consent")
        assert server.http.get("/v1/images").json()["data"] == []
        page.set_input_files("input[type=file]", given)
        page.get_by_text("никого нельзя узнать").wait_for()
        page.keyboard.press("Space")  # the tick has the focus
        page.get_by_text("Начнём с этой картинки").wait_for()
        assert page.is_hidden("studio-consent")
        assert len(server.http.get("/v1/images").json()["data"]) == 1
    finally:
        server.close()


@pytest.mark.parametrize("locale", ["ru-RU", "en-GB"])
def test_a_small_screen_shows_everything(server: Server, visit: Visit, locale: str) -> None:
    server.draw(prompt=PROMPT, n=2)
    page = visit(server.url, locale=locale, width=360, height=640)
    for state in everything(page):
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, state
        inside = "(dialog) => dialog.scrollWidth <= dialog.clientWidth"
        for dialog in page.locator("dialog[open]").element_handles():
            assert dialog.evaluate(inside), state


def test_who_wants_no_motion_gets_none(server: Server, visit: Visit) -> None:
    page = visit(server.url, reduced_motion="reduce")
    moving = """[...document.querySelectorAll('*')].filter((one) => ['', '::after', '::before'].some((part) => {
      const style = getComputedStyle(one, part || null);
      return style.animationName !== 'none' || !style.transitionDuration.split(', ').every((each) => each === '0s');
    })).length"""
    page.fill("#prompt", "часы")
    page.keyboard.press("Enter")
    page.locator("picture-tile").first.wait_for()
    assert page.evaluate(moving) == 0
    page.keyboard.press("Escape")
    page.locator("job-card.over").wait_for()


def test_scripts_of_others_do_not_run(server: Server, visit: Visit) -> None:
    page = visit(server.url, expected=("Content Security Policy",))
    page.evaluate("""() => {
      window.expected = ['script-src', 'connect-src'];
      document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.broken = 1' }));
      document.body.append(Object.assign(document.createElement('script'), { src: 'https://example.com/x.js' }));
      const loaded = new Promise((done) => { document.body.lastChild.onerror = done; });
      return Promise.all([loaded, fetch('https://example.com/').catch(() => null)]).then(() => null);
    }""")
    assert page.evaluate("window.broken") is None
    blocked = {one.split()[0] for one in page.evaluate("window.violations")}
    assert {"script-src-elem", "connect-src"} <= blocked


def test_the_page_goes_on_when_the_server_is_back(server: Server, visit: Visit) -> None:
    server.draw(prompt=PROMPT, n=2)
    page = visit(server.url, expected=("ERR_FAILED",))
    page.route("**/v1/**", lambda route: route.abort())
    page.reload()
    page.get_by_text("Сервер не отвечает.").first.wait_for()
    page.fill("#prompt", "пока никого")
    page.unroute("**/v1/**")
    expect(page.locator(".grid li")).to_have_count(2)
    assert page.input_value("#prompt") == "пока никого"
    page.locator("#field-model").wait_for(state="attached")
