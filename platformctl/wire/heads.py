"""Request heads of HTTP/1.1: strict parsing, message framing, and the hygiene of forwarding.

llhttp (through httptools) parses; what it tolerates beyond RFC 9112 is refused here.
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from platformctl.errors import HeadError, excerpt
from platformctl.wire.fields import (
    HOP_BY_HOP,
    HUB_PREFIX,
    HUB_SET,
    MAX_FIELDS,
    TOKEN,
    Fields,
    check_lines,
    clean_block,
    clean_trailers,
    connection_options,
    content_length,
    lowered,
    notable,
    split_block,
)
from platformctl.wire.frames import UNKNOWN_LENGTH
from platformctl.wire.response_heads import ResponseHead, parse_response

__all__ = [
    "HOP_BY_HOP",
    "HUB_PREFIX",
    "HUB_SET",
    "MAX_FIELDS",
    "MAX_REQUEST_HEAD",
    "MAX_TARGET",
    "RequestHead",
    "ResponseHead",
    "clean_block",
    "clean_trailers",
    "parse_request",
    "parse_response",
    "split_block",
]

MAX_REQUEST_HEAD: Final = 32 * 1024
MAX_TARGET: Final = 8 * 1024

# Framing is said anew on each hop, and so is Host by the backend's own settings.
_NEVER_FORWARDED: Final = HOP_BY_HOP | HUB_SET | {b"host", b"content-length"}
_REQUEST_LINE: Final = re.compile(
    rb"(?:\r\n)?(" + TOKEN + rb") ([!\"$-~]+) HTTP/([0-9])\.([0-9])\r\n"  # a target of visible ASCII without "#"
)
_AUTHORITY: Final = re.compile(rb"[A-Za-z0-9._\-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]*)(/?.*)", re.IGNORECASE)


class RequestHead:
    """A request head that passed every check.

    Attributes:
        method, target: as sent; an absolute-form target is reduced to its path (RFC 9112 3.2.2).
        minor: HTTP/1.`minor`.
        fields: every field, in order: (lower-case name, name, value without surrounding white space).
        host: the Host value, empty for HTTP/1.0 without one.
        body_length: 0 none, n exact, UNKNOWN_LENGTH chunked.
        keep_alive: the client wants the connection to stay.
        upgrade: the Upgrade value when `Connection: upgrade` asks for it, else empty.
        expects_continue: `Expect: 100-continue` was sent.
        connection: lower-case names that Connection lists, hop-by-hop by the client's word.
    """

    __slots__ = (
        "body_length",
        "connection",
        "expects_continue",
        "fields",
        "host",
        "keep_alive",
        "method",
        "minor",
        "target",
        "upgrade",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.minor = 1
        self.fields: Fields = []
        self.host = b""
        self.body_length = 0
        self.keep_alive = True
        self.upgrade = b""
        self.expects_continue = False
        self.connection: tuple[bytes, ...] = ()

    def get(self, name: bytes) -> bytes:
        """The first value of a lower-case name, or empty."""
        for lower, _, value in self.fields:
            if lower == name:
                return value
        return b""

    def block(self, drop: frozenset[bytes] = frozenset()) -> bytes:
        """The end-to-end fields as `Name: value CRLF` lines: without hop-by-hop, hub-set, framing, Host and `drop`."""
        lines = []
        trailers = b""
        connection = self.connection
        for lower, name, value in self.fields:
            if lower in _NEVER_FORWARDED:
                if lower == b"te" and b"trailers" in value.lower():
                    trailers = b"TE: trailers\r\n"
                continue
            if lower in drop or lower in connection or lower.startswith(HUB_PREFIX):
                continue
            if b"_" in lower and _imitates_hub(lower, drop):
                continue
            lines.append(name + b": " + value + b"\r\n")
        return b"".join(lines) + trailers


def _imitates_hub(lower: bytes, drop: frozenset[bytes]) -> bool:
    """CGI and WSGI read `_` and `-` alike, so `platform_identity` would be our word too (RFC 3875 4.1.18)."""
    alike = lower.replace(b"_", b"-")
    return alike in _NEVER_FORWARDED or alike in drop or alike.startswith(HUB_PREFIX)


class _Collector:
    """What httptools calls back, for one head."""

    __slots__ = ("complete", "fields")

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.complete = True


def parse_request(head: bytes) -> RequestHead:
    """Parse one whole request head, ending in its empty line.

    Raises:
        HeadError: 400 malformed or ambiguous, 414 target too long, 417 unknown expectation, 431 too large, 501 unknown
            transfer coding, 505 unknown version.
    """
    if len(head) > MAX_REQUEST_HEAD:
        raise HeadError(431, "head-too-large", f"the request head is over {MAX_REQUEST_HEAD} bytes")
    line = _REQUEST_LINE.match(head)
    if line is None:
        first = head.partition(b"\r")[0]
        raise HeadError(400, "bad-request", f"bad request line {excerpt(first)!r}")
    request = RequestHead()
    request.method, target, major, minor = line.groups()
    if major != b"1" or minor not in (b"0", b"1"):
        version = (major + b"." + minor).decode()
        raise HeadError(505, "http-version", f"HTTP/{version} is not spoken on this connection")
    request.minor = 1 if minor == b"1" else 0
    if len(target) > MAX_TARGET:
        raise HeadError(414, "uri-too-long", f"the request target is over {MAX_TARGET} bytes")
    check_lines(head, line.end(), "request")
    request.fields = lowered(_parsed_fields(head))
    found = notable(request.fields)
    _set_request_length(request, found.get(b"content-length"), found.get(b"transfer-encoding"))
    _set_host(request, found.get(b"host", []))
    _set_target(request, target)
    if b"connection" in found:
        request.connection = connection_options(found[b"connection"])
    request.keep_alive = b"close" not in request.connection if request.minor else b"keep-alive" in request.connection
    if b"upgrade" in request.connection and request.minor:
        _set_upgrade(request, found.get(b"upgrade", []))
    if b"expect" in found:
        _set_expectation(request, found[b"expect"])
    return request


def _parsed_fields(head: bytes) -> list[tuple[bytes, bytes]]:
    collector = _Collector()
    try:
        httptools.HttpRequestParser(collector).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # not an error: the head is complete and asks for a switch
    except httptools.HttpParserError as e:
        # llhttp calls a request that ends in a coding other than chunked malformed; RFC 9112 6.1 has 501 for it.
        if not (collector.complete and "invalid `Transfer-Encoding`" in str(e)):
            raise HeadError(400, "bad-request", f"malformed request head: {e}") from e
    if not collector.complete:
        raise HeadError(400, "bad-request", "the request head is not complete")
    return collector.fields


def _set_host(request: RequestHead, hosts: list[bytes]) -> None:
    if len(hosts) > 1:
        raise HeadError(400, "bad-request", "more than one Host header (RFC 9112 3.2)")
    if not hosts:
        if request.minor:
            raise HeadError(400, "bad-request", "no Host header (RFC 9112 3.2)")
        return
    if not _AUTHORITY.fullmatch(hosts[0]):
        raise HeadError(400, "host-invalid", f"bad Host {excerpt(hosts[0])!r}")
    request.host = hosts[0]


def _set_target(request: RequestHead, target: bytes) -> None:
    request.target = target
    if request.method == b"CONNECT":
        if not _AUTHORITY.fullmatch(target) or b":" not in target.rpartition(b"]")[2]:
            raise HeadError(400, "authority-invalid", "CONNECT wants host:port (RFC 9112 3.2.3)")
    elif not target.startswith(b"/"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is not None:
            authority, path = absolute.groups()
            if authority.lower() != request.host.lower():
                raise HeadError(400, "target-invalid", "the request target and the Host header disagree")
            request.target = path if path.startswith(b"/") else b"/" + path
        elif not (target == b"*" and request.method == b"OPTIONS"):
            raise HeadError(400, "target-invalid", f"bad request target {excerpt(target)!r}")


def _set_upgrade(request: RequestHead, wanted: list[bytes]) -> None:
    """Take the wish to upgrade; never to h2c, for what follows on such a connection is checked by nobody.

    To ignore the field is allowed (RFC 9110 7.8), and the upgrade to h2c is obsolete (RFC 9113 3.1).
    """
    if len(wanted) == 1 and b"h2c" not in wanted[0].lower():
        request.upgrade = wanted[0]


def _set_expectation(request: RequestHead, expectations: list[bytes]) -> None:
    for expectation in expectations:
        if expectation.lower() != b"100-continue":
            raise HeadError(417, "expectation-failed", f"unknown expectation {excerpt(expectation)!r}")
    request.expects_continue = request.minor == 1 and request.body_length != 0


def _set_request_length(request: RequestHead, lengths: list[bytes] | None, codings: list[bytes] | None) -> None:
    if codings:
        if lengths:
            raise HeadError(400, "bad-request", "both Content-Length and Transfer-Encoding (RFC 9112 6.1)")
        if request.minor == 0:
            raise HeadError(400, "bad-request", "Transfer-Encoding in HTTP/1.0")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise HeadError(501, "transfer-coding", f"only the chunked coding is known, not {excerpt(codings[0])!r}")
        request.body_length = UNKNOWN_LENGTH
    elif lengths:
        request.body_length = content_length(lengths)
    if request.body_length and request.method in (b"CONNECT", b"TRACE"):
        raise HeadError(400, "bad-request", f"{request.method.decode()} with a body")
