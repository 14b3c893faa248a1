"""Response heads of HTTP/1.1 from a backend: strict parsing, message framing, and what may be forwarded."""

from __future__ import annotations

import re
from typing import Final

from platformctl.errors import HeadError, excerpt
from platformctl.wire.fields import FIELD, HOP_BY_HOP, check_lines, connection_options, content_length, lowered, notable
from platformctl.wire.frames import UNKNOWN_LENGTH


class ResponseHead:
    """A response head, checked and ready to be forwarded.

    Attributes:
        status: 100 to 599.
        block: end-to-end fields as `Name: value CRLF` lines, without framing and hop-by-hop fields.
        body_length: 0, n exact, or UNKNOWN_LENGTH (chunked, or until close when `until_close`).
        keep_alive: the peer keeps the connection.
        upgrade: the Upgrade value of a 101.
        declared: Content-Length as declared where no body follows (HEAD, 304), else -1.
    """

    __slots__ = ("block", "body_length", "declared", "keep_alive", "status", "until_close", "upgrade")

    def __init__(self) -> None:
        self.status = 0
        self.block = b""
        self.body_length = 0
        self.keep_alive = True
        self.until_close = False
        self.upgrade = b""
        self.declared = -1


_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?\r\n")


def parse_response(head: bytes, method: bytes) -> ResponseHead:
    """Parse one whole response head from a backend; `method` is the request's (HEAD has no body, RFC 9112 6.3).

    Raises:
        HeadError: 502, always: the backend's fault.
    """
    line = _STATUS_LINE.match(head)
    if line is None:
        first = head.partition(b"\r")[0]
        raise HeadError(502, "bad-backend-response", f"bad status line {excerpt(first)!r}")
    response = ResponseHead()
    response.status = int(line.group(1))
    minor = head[7] == 0x31
    try:
        check_lines(head, line.end(), "response")
        fields = lowered(FIELD.findall(head, line.end(), len(head) - 2))
        found = notable(fields)
        lengths, codings = found.get(b"content-length"), found.get(b"transfer-encoding")
        if codings and (lengths or not minor):
            what = "both Content-Length and" if lengths else "HTTP/1.0 with"
            raise HeadError(502, "bad-backend-response", f"{what} Transfer-Encoding in a response")
        if codings and (len(codings) > 1 or codings[0].lower() != b"chunked"):
            raise HeadError(502, "bad-backend-response", f"transfer coding {excerpt(codings[0])!r} in a response")
        # RFC 9110 8.6 allows repeated equal values from an origin.
        length = content_length(sorted(set(lengths))) if lengths else UNKNOWN_LENGTH
    except HeadError as e:
        raise HeadError(502, "bad-backend-response", str(e)) from e
    connection = connection_options(found.get(b"connection", []))
    response.keep_alive = b"close" not in connection if minor else b"keep-alive" in connection
    response.block = b"".join(
        name + b": " + value + b"\r\n"
        for lower, name, value in fields
        if lower not in HOP_BY_HOP and lower not in connection and lower != b"content-length"
    )
    status = response.status
    if status == 101:
        response.upgrade = found.get(b"upgrade", [b""])[0]
    if status < 200 or status in (204, 304) or method == b"HEAD":
        response.declared = length if status >= 200 and status != 204 else -1
    elif method == b"CONNECT" and status < 300:
        raise HeadError(502, "bad-backend-response", "the backend accepted a CONNECT that was not sent")
    else:
        response.body_length = length
        response.until_close = length == UNKNOWN_LENGTH and not codings
        response.keep_alive = response.keep_alive and not response.until_close
    return response
