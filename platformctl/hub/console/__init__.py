"""Web console of the hub, `/console/`: static files, served as an ASGI 3 application.

1. No file comes from elsewhere, and the Content-Security-Policy says so; scripts and styles are files, so nothing
   inline is allowed.
2. The page needs no credential; everything it shows it reads from `/api/v1` with the person's own token.
3. The files are read once, when the application is made: a request touches no disk and no path of its own choosing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.resources import files
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from platformctl.net.problem import problem

__all__ = ["CONTENT_SECURITY_POLICY", "console_app"]

PREFIX: Final = "/console/"
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Not even our own script may turn text into HTML.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_TYPES: Final = {
    "index.html": "text/html; charset=utf-8",
    "console.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "app.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "tables.js": "text/javascript; charset=utf-8",
    "tokens.js": "text/javascript; charset=utf-8",
}
_COMMON: Final = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
    (b"cache-control", b"no-cache"),
)
Headers = Iterable[tuple[bytes, bytes]]


def console_app() -> ASGIApp:
    """The application for `/console` and everything under `/console/`; paths are whole."""
    root = files(__name__)
    contents = {name: root.joinpath(name).read_bytes() for name in _TYPES}
    tags = {name: f'"{hashlib.sha256(body).hexdigest()[:32]}"'.encode() for name, body in contents.items()}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, head = scope["path"], scope["method"] == "HEAD"
        name = path.removeprefix(PREFIX) or "index.html"
        if not head and scope["method"] != "GET":
            await _problem(
                send, scope, 405, "method-not-allowed", "the console is only read", [(b"allow", b"GET, HEAD")]
            )
        elif path == PREFIX.rstrip("/"):
            # Relative, so that it is right behind a proxy that puts a prefix in front, too.
            await _send(send, 308, [(b"location", b"console/")], b"", head=head)
        elif name not in contents:
            await _problem(send, scope, 404, "path-unknown", "the console has no such file")
        elif _header(scope, b"if-none-match") == tags[name]:
            await _send(send, 304, [(b"etag", tags[name])], b"", head=True)
        else:
            fields = [(b"content-type", _TYPES[name].encode()), (b"etag", tags[name])]
            await _send(send, 200, fields, contents[name], head=head)

    return app


def _header(scope: Scope, wanted: bytes) -> bytes:
    return next((bytes(value) for name, value in scope["headers"] if name.lower() == wanted), b"")


async def _problem(send: Send, scope: Scope, status: int, code: str, detail: str, more: Headers = ()) -> None:
    request_id = str(scope.get("state", {}).get("request_id", ""))
    _, fields, body = problem(status, code, detail, request_id=request_id)
    encoded = [
        (name.encode(), value.encode())
        for name, value in fields
        if name not in ("cache-control", "x-content-type-options")
    ]
    await _send(send, status, [*encoded, *more], body, head=scope["method"] == "HEAD")


async def _send(send: Send, status: int, fields: Headers, body: bytes, *, head: bool) -> None:
    headers = [*_COMMON, *fields]
    if status != 304:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})
