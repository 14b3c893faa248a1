"""Problem responses (RFC 9457) as bytes, and the table of every stable code that the hub answers with.

Pure functions: no clock, no socket. `problem` gives the parts for an ASGI or CLI caller, `render_http1` one whole
HTTP/1.1 response for the data plane. `docs/reference/errors.md` is generated from `PROBLEMS` by `render_reference`; a
test fails when it is stale.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from platformctl.net.problem_table import PROBLEMS, ProblemKind

__all__ = ["CONTENT_TYPE", "PROBLEMS", "ProblemKind", "document", "problem", "render_http1", "render_reference"]

CONTENT_TYPE: Final = "application/problem+json"
DOCS_PATH: Final = "/docs/reference/errors"
# Detail and hint may quote a foreign value: more than this helps nobody and lets a peer choose the size of our answer.
MAX_TEXT: Final = 1000
_FIELD_VALUE = re.compile(r"[\x21-\x7e]{1,200}\Z")
# RFC 9110 renamed these; Python has the new names since 3.13 only, and the reference must not depend on that.
_RFC_9110: Final = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}
_CHALLENGE: Final = ("www-authenticate", 'Bearer realm="platformctl"')

Headers = list[tuple[str, str]]


def document(
    status: int,
    code: str,
    detail: str,
    *,
    hint: str = "",
    request_id: str = "",
    extra: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Members of a problem: RFC 9457's type, title, status, detail, and our code, hint and request_id.

    An unknown code is still answered (an error path must not fail), with the type that RFC 9457 section 4.2.1
    reserves for it. An empty `hint` is filled from the table. `extra` adds extension members and cannot replace the
    others.
    """
    kind = PROBLEMS.get(code)
    members: dict[str, object] = {
        "type": f"{DOCS_PATH}#{code}" if kind else "about:blank",
        "title": kind.title if kind else _phrase(status),
        "status": status,
        "code": code,
        "detail": _cut(detail),
        "hint": _cut(hint or (kind.action if kind else "")),
        "request_id": request_id if _FIELD_VALUE.match(request_id) else "",
    }
    return {**(extra or {}), **members}


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    hint: str = "",
    request_id: str = "",
    retry_after: float | None = None,
    extra: Mapping[str, object] | None = None,
) -> tuple[int, Headers, bytes]:
    """Status, headers (without Content-Length) and body of a problem response.

    `retry_after` is in seconds and rounded up to whole ones, at least 1 (RFC 9110 section 10.2.3 has no fractions).
    A 401 always carries its challenge (RFC 9110 section 15.5.2).
    """
    body = json.dumps(
        document(status, code, detail, hint=hint, request_id=request_id, extra=extra), separators=(",", ":")
    ).encode("ascii")
    headers: Headers = [
        ("content-type", CONTENT_TYPE),
        ("cache-control", "no-store"),
        # A browser that is shown a problem must not guess HTML from what a stranger put into the detail.
        ("x-content-type-options", "nosniff"),
    ]
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append(_CHALLENGE)
    if retry_after is not None:
        headers.append(("retry-after", str(max(1, -int(-retry_after // 1)))))
    if _FIELD_VALUE.match(request_id):
        headers.append(("x-request-id", request_id))
    return status, headers, body


def render_http1(
    status: int,
    code: str,
    detail: str,
    *,
    hint: str = "",
    request_id: str = "",
    retry_after: float | None = None,
    close: bool = False,
    head_only: bool = False,
    date: str = "",
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """One whole HTTP/1.1 response.

    `close` announces that the connection ends after it; `head_only` leaves the body out but keeps its length (answer
    to HEAD, RFC 9110 section 9.3.2); `date` is an IMF-fixdate, left out when empty; `headers` are added as they are
    and must be ours.
    """
    _, fields, body = problem(status, code, detail, hint=hint, request_id=request_id, retry_after=retry_after)
    lines = [f"HTTP/1.1 {status} {_phrase(status)}"]
    lines += [f"{name}: {value}" for name, value in fields]
    lines += [f"{name}: {value}" for name, value in headers]
    if date:
        lines.append(f"date: {date}")
    lines.append(f"content-length: {len(body)}")
    if close:
        lines.append("connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
    return head if head_only else head + body


def render_reference() -> str:
    """Text of docs/reference/errors.md."""
    lines = [
        "# Errors that the hub answers",
        "",
        "<!-- Generated from platformctl/net/problem_table.py; `python -m platformctl.net.problem` prints it. -->",
        "",
        "Every error is `application/problem+json` (RFC 9457). `code` is stable: programs may depend on it.",
        "`detail` says what happened to what, `hint` what to do next, and `request_id` finds the request in the logs",
        "and the audit trail. `type` is the address of the entry below.",
        "Where `Retry-After` is sent, it is in whole seconds.",
        "",
        "    "
        + json.dumps(
            document(404, "service-unknown", "satellite edge-1 exports no service named api", request_id="01J8Z")
        ),
        "",
        "| code | status | title |",
        "|---|---|---|",
    ]
    kinds = sorted(PROBLEMS.values(), key=lambda kind: (kind.status, kind.code))
    lines += [f"| [`{kind.code}`](#{kind.code}) | {kind.status} | {kind.title} |" for kind in kinds]
    for kind in kinds:
        lines += [
            "",
            f"## {kind.code}",
            "",
            f"**{kind.status} {_phrase(kind.status)}.** {kind.meaning}",
            "",
            f"*What to do:* {kind.action}",
        ]
    return "\n".join(lines) + "\n"


def _phrase(status: int) -> str:
    if status in _RFC_9110:
        return _RFC_9110[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _cut(text: str) -> str:
    short = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
    # A lone surrogate would be an escape that strict JSON readers refuse (RFC 8259 section 8.2).
    return short.encode("utf-8", "replace").decode()


if __name__ == "__main__":
    print(render_reference(), end="")
