"""The door of the control API: what every request passes before a route sees it.

1. The access grant decides. Without one nothing is allowed: a wiring mistake must close the door, not open it.
2. A browser's changing request from another site is refused, for a client certificate would ride along (Fetch
   Metadata, Sec-Fetch-Site).
3. Bodies are bounded before they are read, and HEAD is GET without the body (RFC 9110 section 9.3.2).
4. Whatever fails below becomes a problem with the request id, and a log record; never a traceback for the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from platformctl.access.identity import ANONYMOUS
from platformctl.errors import excerpt
from platformctl.net.problem import problem

__all__ = ["MAX_BODY", "Gate", "send_problem"]

log = logging.getLogger("platformctl.hub.api")

# The largest request of this API is a token with 64 labels of at most 63 + 253 + 63 characters.
MAX_BODY = 64 * 1024
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Gate:
    """ASGI middleware; reads `identity`, `grant` and `request_id` that the ingress put into `scope["state"]`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state: Mapping[str, Any] = scope.get("state", {})
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = _refusal(state, scope["method"], scope["path"], headers)
        if refused is not None:
            status, code, detail, hint = refused
            await send_problem(send, state, status, code, detail, hint)
            return
        answer = _Answer(send, state, head=scope["method"] == "HEAD")
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            if scope["method"] not in _READING:
                body = await _read(receive)
                if len(body) > MAX_BODY:
                    await answer.fail(413, "body-too-large", f"the body is longer than {MAX_BODY} bytes")
                    return
                receive = _replay(body, receive)
            await self._app(inner, receive, answer.send)
        except Exception:
            log.exception("a control API request failed", extra={"request_id": state.get("request_id", "")})
            await answer.fail(500, "internal", "the hub could not answer this request")


class _Answer:
    """The response on its way out: adds the common fields, drops a HEAD's body, remembers whether it began."""

    def __init__(self, send: Send, state: Mapping[str, Any], *, head: bool) -> None:
        self._send = send
        self._state = state
        self._head = head
        self._begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            fields = [(b"x-content-type-options", b"nosniff"), *message.get("headers", ())]
            names = {name for name, _ in fields}
            if b"cache-control" not in names:
                fields.append((b"cache-control", b"no-store"))
            request_id = str(self._state.get("request_id", "")).encode("latin-1", "replace")
            if request_id and b"x-request-id" not in names:
                fields.append((b"x-request-id", request_id))
            message = {**message, "headers": list(dict(fields).items())}
        elif self._head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)

    async def fail(self, status: int, code: str, detail: str) -> None:
        if not self._begun:
            await send_problem(self.send, self._state, status, code, detail)


async def send_problem(
    send: Send, state: Mapping[str, Any], status: int, code: str, detail: str, hint: str = ""
) -> None:
    status, fields, body = problem(status, code, detail, hint=hint, request_id=str(state.get("request_id", "")))
    encoded = [(name.encode(), value.encode()) for name, value in fields]
    encoded.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def _refusal(
    state: Mapping[str, Any], method: str, path: str, headers: Mapping[bytes, str]
) -> tuple[int, str, str, str] | None:
    grant, identity = state.get("grant"), state.get("identity")
    if grant is None or identity is None:
        return 403, "access-denied", "the hub has no access decision for this request", ""
    if method not in _READING and headers.get(b"sec-fetch-site", "none") not in ("none", "same-origin"):
        return 403, "cross-site", f"a page of another site sent {excerpt(method)} {excerpt(path)}", ""
    # HEAD reveals nothing that GET would not, so a rule for GET is enough for it.
    if grant.check("GET" if method == "HEAD" else method, path).allowed:
        return None
    if identity.kind == ANONYMOUS.kind:
        return 401, "unauthenticated", f"{excerpt(method)} {excerpt(path)} needs a credential, and none was sent", ""
    return 403, "access-denied", f"{excerpt(identity.subject)} may not {excerpt(method)} {excerpt(path)}", ""


async def _read(receive: Receive) -> bytes:
    """The body, or as much of it as shows that it is too long."""
    body = b""
    more = True
    while more and len(body) <= MAX_BODY:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
