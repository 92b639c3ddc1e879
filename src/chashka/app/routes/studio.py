"""The studio's files, as they are: names that exist, types by their suffix, nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response

from chashka.app.guard.shield import PAGE_POLICY
from chashka.app.service import NotFoundError

FOLDER = Path(__file__).parent.parent / "web"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".png": "image/png",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}


def router() -> APIRouter:
    """``/`` and ``/web/…``; no part of the API."""
    routes = APIRouter(include_in_schema=False)
    files = {path.relative_to(FOLDER).as_posix(): path for path in sorted(FOLDER.rglob("*")) if path.suffix in TYPES}

    def sent(request: Request, name: str) -> Response:
        if name not in files:
            raise NotFoundError("there is no such file")
        data = files[name].read_bytes()
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": PAGE_POLICY}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=TYPES[files[name].suffix], headers=headers)

    @routes.get("/")
    def page(request: Request) -> Response:
        """The studio."""
        return sent(request, "index.html")

    @routes.get("/web/{name:path}")
    def part(request: Request, name: str) -> Response:
        """A file of it."""
        return sent(request, name)

    return routes
