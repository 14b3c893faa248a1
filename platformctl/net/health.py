"""`/livez`, `/readyz` and `/metrics` as one small ASGI 3 application, for the port of their own.

`/livez` says that the process answers. `/readyz` runs the checks and names those that fail. `/metrics` is Prometheus
text, or OpenMetrics when the scraper asks for it. No framework: a probe must answer even when the rest of the process
is in trouble.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qs

__all__ = ["Check", "Checks", "health_app"]

Check = tuple[str, bool, str]
"""Name, whether it is fine, and a detail for people."""
Checks = Callable[[], Iterable[Check]]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Answer = tuple[int, str, bytes]

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def health_app(checks: Checks, metrics: Callable[[], bytes], openmetrics: Callable[[], bytes] | None = None) -> App:
    """The application. `metrics` gives Prometheus text 0.0.4, `openmetrics` (optional) the same as OpenMetrics 1.0.0.

    A check that raises is a failed check, named `checks`; a failing `metrics` is a 500 for that scrape alone.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        path, query = scope["path"], scope.get("query_string", b"")
        headers: list[tuple[bytes, bytes]] = []
        if scope["method"] not in ("GET", "HEAD"):
            answer: Answer = (405, TEXT, b"only GET and HEAD\n")
            headers.append((b"allow", b"GET, HEAD"))
        elif path == "/livez":
            answer = (200, TEXT, b"ok\n")
        elif path == "/readyz":
            answer = _ready(checks, query)
        elif path == "/metrics":
            answer = _metrics(metrics, openmetrics, _accept(scope))
            headers.append((b"vary", b"accept"))
        else:
            answer = (404, TEXT, b"not found; see /livez, /readyz, /metrics\n")
        await _send(send, answer, headers, body=scope["method"] != "HEAD")

    return app


def _ready(checks: Checks, query: bytes) -> Answer:
    try:
        results = list(checks())
    except Exception as e:  # a probe answers whatever happens, and says what did
        results = [("checks", False, f"the checks themselves failed: {type(e).__name__}")]
    fine = all(ok for _, ok, _ in results)
    status = 200 if fine else 503
    if "verbose" in parse_qs(query.decode("latin-1"), keep_blank_values=True):
        # The form that Kubernetes components use, so that the same eyes and scripts read it.
        lines = [
            f"[{'+' if ok else '-'}]{name} {'ok' if ok else 'failed: ' + _line(detail)}" for name, ok, detail in results
        ]
        lines.append("readyz check passed" if fine else "readyz check failed")
        return status, TEXT, ("\n".join(lines) + "\n").encode()
    failing = [{"name": name, "detail": detail} for name, ok, detail in results if not ok]
    body = {"ready": fine, "checks": len(results), "failed": failing}
    return status, JSON, json.dumps(body).encode() + b"\n"


def _metrics(metrics: Callable[[], bytes], openmetrics: Callable[[], bytes] | None, accept: str) -> Answer:
    wanted = openmetrics if openmetrics is not None and "application/openmetrics-text" in accept else None
    try:
        return (200, OPENMETRICS, wanted()) if wanted else (200, PROMETHEUS, metrics())
    except Exception as e:  # one broken collector must not look like a dead hub
        return 500, TEXT, f"metrics could not be collected: {type(e).__name__}\n".encode()


def _accept(scope: Scope) -> str:
    return ",".join(
        value.decode("latin-1") for name, value in scope.get("headers", ()) if name.lower() == b"accept"
    ).lower()


def _line(text: str) -> str:
    return " ".join(text.split())


async def _send(send: Send, answer: Answer, headers: list[tuple[bytes, bytes]], *, body: bool) -> None:
    status, content_type, content = answer
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content if body else b""})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
