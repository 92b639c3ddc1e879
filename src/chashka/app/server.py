"""The whole put together: the application behind its shield, and the process that serves it until it is told to stop."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

import uvicorn
from anyio import to_thread
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from chashka import __version__
from chashka.app import kinds, logs
from chashka.app.dialects import a1111, openai
from chashka.app.guard import policy
from chashka.app.guard.shield import App, Shield
from chashka.app.keeping.housekeeping import Housekeeping
from chashka.app.routes import about, collections, errors, images, jobs, sessions, sketches, studio
from chashka.app.service import Service
from chashka.app.settings import Settings
from chashka.app.sketches import Sketches
from chashka.errors import FileError

if TYPE_CHECKING:
    from chashka.app.compute.runner import Runner
    from chashka.app.compute.worker import Worker

INFO = "server.json"
"""Its name in the data folder: {url, token, pid} of the server that runs, for commands of the same user."""
CLOSING = 8.0
"""Seconds of the time to stop that are kept for answers that are under way, and for closing."""
ANSWERS = 5.0
"""Seconds of these for answers."""
ANSWERING = 6
"""Threads that answer. More of them only wait for each other, for the interpreter's lock and the database's one writer, and those
that submit wait longest."""
DESCRIPTION = """Draws pictures from text. A job is submitted, drawn by a worker, and its pictures are in the gallery.

Errors are `{"error": {"message", "type", "param", "code"}}`. Every answer has `X-Request-Id`. What changes something needs
`Content-Type: application/json`, or a form with the header `X-Chashka`. Where keys exist: `Authorization: Bearer KEY`."""


def create(settings: Settings, service: Service) -> App:
    """The ASGI application. It opens nothing and starts nothing; the caller does, and closes it."""
    app = FastAPI(
        title="chashka",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=None,  # see below: making the document takes a while, and would hold everything else up
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,
    )
    errors.install(app, service)
    for router in (
        openai.router(service),
        jobs.router(service),
        sketches.router(service),
        images.router(service),
        collections.router(service),
        about.router(service),
        sessions.router(service),
        a1111.router(service),
        studio.router(),
    ):
        app.include_router(router)
    plain = app.openapi

    def documented() -> dict[str, Any]:
        """The document, with the ways to give a key; none is needed on a server that has none."""
        document = plain()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(errors.SCHEMAS)
        components["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer"},
            "session": {"type": "apiKey", "in": "cookie", "name": "chashka_session"},
        }
        document["security"] = [{}, {"key": []}, {"session": []}]
        return document

    app.openapi = documented  # type: ignore[method-assign]
    app.add_api_route("/openapi.json", lambda: JSONResponse(app.openapi()), include_in_schema=False)
    return Shield(app, settings, service.metrics)


def serve(
    settings: Settings,
    *,
    started: Callable[[str], None] = lambda url: None,
    log: IO[str] | None = None,
    runner: Runner | None = None,
) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; whether everything that was drawn ended, or went back to the queue, in time.

    started: called with the address once it can be reached. runner: what computes instead of the setting's, for tests. Raises
    FileError (the data belong to another server, the address cannot be used) and InputError (others could reach a server without
    a key) before anything is served.
    """
    logs.start(log)
    token = secrets.token_urlsafe(32)
    with contextlib.ExitStack() as stack:
        service, worker = stack.enter_context(opened(settings, token, runner))
        service.access.refuse_open_door()
        # the default model exists; and the first request need not load what that takes
        kinds.check("draw", {"prompt": "чашка"}, {}, settings)
        bound = _bound(settings)
        stack.callback(bound.close)
        server = _Server(_config(settings, create(settings, service)), service, worker, settings, token, started)
        keeping = Housekeeping(service.store, service.blobs, settings.retention)
        if service.store.database.sole:  # nobody else can be drawing what a server that is gone left behind
            service.store.jobs.requeue_all_running()
        try:
            worker.start()
            keeping.start()
            server.run(sockets=[bound])
        finally:
            keeping.close()
            drained = (server.drained or worker.drain(0.0)) and _answered()
            if not drained:
                stack.pop_all()  # a thread still uses the store: it is not closed under it, and ends with the process
    return drained


def _config(settings: Settings, app: App) -> uvicorn.Config:
    """How uvicorn serves."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        backlog=1024,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=int(ANSWERS),
        h11_max_incomplete_event_size=65_536,
    )


@contextlib.contextmanager
def opened(settings: Settings, token: str = "", runner: Runner | None = None) -> Iterator[tuple[Service, Worker]]:
    """Everything behind the server, opened and not started: store, blobs, runner, worker. Closed at the end."""
    from chashka.app.compute.worker import Worker
    from chashka.app.events import Hub
    from chashka.app.keeping.blobs import FOLDER, Blobs
    from chashka.app.store import Store

    with contextlib.ExitStack() as stack:
        store = Store.open(settings)
        stack.callback(store.close)
        blobs = Blobs(settings.data / FOLDER)
        computing = runner or _runner(settings)
        stack.callback(computing.close)
        hub = Hub()
        service = Service(settings, store, blobs, hub, token=token)
        worker = Worker(store, blobs, computing, hub, settings)
        service.sketches = Sketches(computing, lambda: service.draining or bool(worker.working))
        yield service, worker


def _runner(settings: Settings) -> Runner:
    """What computes: a process of its own, or this one."""
    if settings.runner == "thread":
        from chashka.app.compute.inprocess import InProcess
        from chashka.app.compute.models import Models

        return InProcess(Models(settings))
    from chashka.app.compute.child import Child

    return Child(settings)


def _bound(settings: Settings) -> socket.socket:
    """A socket that listens on the settings' address. Raises FileError."""
    host = settings.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(
        family, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # asyncio sends at once only where it is told so
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, settings.port))
    except OSError as error:
        bound.close()
        reason = error.strerror or error
        raise FileError(f"cannot listen on {host} port {settings.port}: {reason}; choose another --port") from error
    return bound


def _answered() -> bool:
    """Wait for threads that still answer something: the store must not be closed under them. Whether all came to their end."""
    until = time.monotonic() + CLOSING - ANSWERS
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("AnyIO worker")]
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


class _Server(uvicorn.Server):
    """uvicorn that tells where it is, and drains before it stops."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        worker: Worker,
        settings: Settings,
        token: str,
        started: Callable[[str], None],
    ) -> None:
        super().__init__(config)
        self._service, self._worker, self._settings, self._token = service, worker, settings, token
        self._told = started
        self._stopping = 0
        self.drained = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; then the address is written down."""
        to_thread.current_default_thread_limiter().total_tokens = ANSWERING
        threading.Thread(target=policy.get_ready, name="policy", daemon=True).start()
        await super().startup(sockets)
        if self.should_exit or not sockets:
            return
        host, port = sockets[0].getsockname()[:2]
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
        write_info(self._settings.data, url, self._token)
        logs.log(
            "serving", url=url, version=__version__, pid=os.getpid(), database=self._service.store.database.version
        )
        self._told(url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, after the address was taken back."""
        remove_info(self._settings.data)
        await super().shutdown(sockets)
        logs.log("stopped")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT begin the drain; a second one cuts it short. In another thread there are none to capture."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not ready from now on; running jobs finish or go back to the queue, then the connections close."""
        self._stopping += 1
        self._service.draining = True
        if self._stopping == 1:
            seconds = max(0.0, self._settings.drain - CLOSING)
            threading.Thread(target=self._drain, args=(seconds,), name="drain", daemon=True).start()
        else:
            threading.Thread(target=self._drain, args=(0.0,), name="drain at once", daemon=True).start()

    def _drain(self, seconds: float) -> None:
        logs.log("draining", seconds=seconds)
        try:
            self.drained = self._worker.drain(seconds)
        except Exception as error:
            logs.log("drain failed", level=40, error=error)
        self._service.closing = True  # streams of events end
        self.should_exit = True


def write_info(data: Path, url: str, token: str) -> None:
    """Tell commands of the same user where the server is; nobody else can read it."""
    target, part = data / INFO, data / f".{INFO}.part"
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"url": url, "token": token, "pid": os.getpid()}, file)
    part.replace(target)


def remove_info(data: Path) -> None:
    """Take it back, if it is this process's."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads((data / INFO).read_text(encoding="utf-8"))["pid"] == os.getpid():
            (data / INFO).unlink()
