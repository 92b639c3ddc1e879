"""A real server with the embedded model, Debian's Chromium, and pages that may neither complain nor break their policy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 90_000.0
"""Milliseconds: opening a model for the first time takes a while on a busy machine."""
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(
    `${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
"""


class Server:
    """``chashka serve`` on a free port, with a data folder of its own."""

    def __init__(self, folder: Path, cache: Path, *more: str) -> None:
        self.log = folder.with_suffix(".log").open("wb")
        command = [str(Path(sys.executable).parent / "chashka"), "serve"]
        said = ["--port", "0", "--data", str(folder), "--cache", str(cache), "--submits-per-minute", "0"]
        self.process = subprocess.Popen([*command, *said, *more], stdout=subprocess.PIPE, stderr=self.log, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.http = httpx.Client(base_url=self.url, timeout=60)
        if not self.url:
            self.close()
            pytest.fail(Path(self.log.name).read_text(encoding="utf-8")[-2000:])

    def draw(self, **fields: Any) -> dict[str, Any]:
        """A job drawn to its end: one picture in two steps if nothing else is said."""
        job = self.http.post("/v1/jobs", json={"n": 1, "steps": 2, **fields}).raise_for_status().json()
        with self.http.stream("GET", f"/v1/jobs/{job['id']}/events", timeout=PATIENCE / 1000) as events:
            for _ in events.iter_lines():
                pass
        found: dict[str, Any] = self.http.get(f"/v1/jobs/{job['id']}").json()
        assert found["state"] == "done", found
        return found

    def clear(self) -> None:
        """End what is drawn, and empty the gallery."""
        for state in ("running", "queued"):
            for job in self.http.get("/v1/jobs", params={"state": state, "limit": 100}).json()["data"]:
                self.http.post(f"/v1/jobs/{job['id']}/cancel", json={})
        while pictures := self.http.get("/v1/images", params={"limit": 200}).json()["data"]:
            for picture in pictures:
                self.http.delete(f"/v1/images/{picture['id']}")

    def close(self) -> None:
        """Stop it as an operator would."""
        self.http.close()
        self.process.terminate()
        try:
            self.process.wait(45)
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.log.close()


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled graphs, shared by the servers."""
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, graphs: Path) -> Iterator[Server]:
    """A server that needs no key, with its model open."""
    server = Server(tmp_path_factory.mktemp("studio") / "data", graphs)
    try:
        server.draw(prompt="a cup")
        yield server
    finally:
        server.close()


@pytest.fixture
def server(running: Server) -> Server:
    """The same, with nothing in its gallery and nothing being drawn."""
    running.clear()
    return running


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, in a profile of its own."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no Chromium (on Debian: apt-get install --no-install-recommends chromium)")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page in a new profile: ``visit(url, locale="ru-RU", color_scheme="dark", …)``.

    At the end of the test no page may have complained in its console, failed, or broken its Content-Security-Policy, but for
    what the test names: ``expected`` (parts of messages), or ``window.expected`` for blocked scripts.
    """
    opened: list[tuple[BrowserContext, Page, list[str]]] = []

    def visit(url: str, *, expected: tuple[str, ...] = (), width: int = 1280, height: int = 900, **how: Any) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": height}, **{"locale": "ru-RU", **how})
        context.set_default_timeout(PATIENCE)
        context.add_init_script(WATCH)
        page = context.new_page()
        complaints: list[str] = []

        def complain(text: str) -> None:
            if not any(part in text for part in expected):
                complaints.append(text)

        page.on("pageerror", lambda error: complain(str(error)))
        page.on("console", lambda said: complain(said.text) if said.type in ("error", "warning") else None)
        opened.append((context, page, complaints))
        page.goto(url)
        page.wait_for_selector("studio-gallery #gallery, studio-login form", state="attached")
        return page

    yield visit
    for context, page, complaints in opened:
        violations = [
            one for one in page.evaluate("window.violations") if not any(part in one for part in expected_of(page))
        ]
        context.close()
        assert not complaints
        assert not violations


def expected_of(page: Page) -> tuple[str, ...]:
    """What a test expects to be blocked."""
    return tuple(page.evaluate("window.expected ?? []"))
