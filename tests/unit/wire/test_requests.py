"""Request heads: each case with its exact outcome. What can be read in two ways is refused, never repaired."""

from __future__ import annotations

import pytest

from platformctl.errors import HeadError
from platformctl.wire.fields import MAX_FIELDS
from platformctl.wire.frames import UNKNOWN_LENGTH
from platformctl.wire.heads import (
    MAX_REQUEST_HEAD,
    MAX_TARGET,
    RequestHead,
    _parsed_fields,
    _set_request_length,
    parse_request,
)

H = b"Host: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def get(*lines: bytes, first: bytes = b"GET / HTTP/1.1", host: bytes = H) -> bytes:
    return first + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


REFUSED: list[tuple[str, bytes, int, str, str]] = [
    # The request line.
    ("no request line", b"\r\n\r\n", 400, "bad-request", "bad request line"),
    ("nothing", b"", 400, "bad-request", "bad request line"),
    ("no version, as in HTTP/0.9", get(first=b"GET /"), 400, "bad-request", "bad request line"),
    ("two spaces after the method", get(first=b"GET  / HTTP/1.1"), 400, "bad-request", "bad request line"),
    ("two spaces before the version", get(first=b"GET /  HTTP/1.1"), 400, "bad-request", "bad request line"),
    ("a space at the end", get(first=b"GET / HTTP/1.1 "), 400, "bad-request", "bad request line"),
    ("a space before the method", get(first=b" GET / HTTP/1.1"), 400, "bad-request", "bad request line"),
    ("a tab between the parts", get(first=b"GET\t/\tHTTP/1.1"), 400, "bad-request", "bad request line"),
    ("a space in the target", get(first=b"GET /a b HTTP/1.1"), 400, "bad-request", "bad request line"),
    ("a control character in the target", get(first=b"GET /\x01 HTTP/1.1"), 400, "bad-request", "bad request line"),
    ("a byte over 127 in the target", get(first=b"GET /\xc3\xa9 HTTP/1.1"), 400, "bad-request", "bad request line"),
    ("a fragment in the target", get(first=b"GET /a#b HTTP/1.1"), 400, "bad-request", "bad request line"),
    ("a method that is no token", get(first=b"GE(T / HTTP/1.1"), 400, "bad-request", "bad request line"),
    ("an unknown method", get(first=b"BREW / HTTP/1.1"), 400, "bad-request", "Invalid method"),
    ("a method in lower case", get(first=b"get / HTTP/1.1"), 400, "bad-request", "Invalid method"),
    ("a method of RTSP", get(first=b"DESCRIBE / HTTP/1.1"), 400, "bad-request", "Invalid method"),
    ("RTSP", get(first=b"DESCRIBE /a RTSP/1.0"), 400, "bad-request", "bad request line"),
    ("ICE", get(first=b"SOURCE /a ICE/1.0"), 400, "bad-request", "bad request line"),
    ("a version in lower case", get(first=b"GET / http/1.1"), 400, "bad-request", "bad request line"),
    ("a version without a dot", get(first=b"GET / HTTP/11"), 400, "bad-request", "bad request line"),
    ("HTTP/0.9 said aloud", get(first=b"GET / HTTP/0.9"), 505, "http-version", "HTTP/0.9"),
    ("HTTP/1.2", get(first=b"GET / HTTP/1.2"), 505, "http-version", "HTTP/1.2"),
    ("HTTP/2.0", get(first=b"GET / HTTP/2.0"), 505, "http-version", "HTTP/2.0"),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\n", 505, "http-version", "HTTP/2.0"),
    ("two empty lines before it", b"\r\n\r\n" + get(), 400, "bad-request", "bad request line"),
    ("a TLS hello", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", 400, "bad-request", "bad request line"),
    # The lines.
    ("a bare LF in the request line", b"GET / HTTP/1.1\n" + H + b"\r\n", 400, "bad-request", "bad request line"),
    ("a bare LF after a field", get(b"A: b\nC: d"), 400, "bad-request", "bare LF"),
    ("a bare CR in a value", get(b"A: b\rC: d"), 400, "bad-request", "bare CR"),
    ("a bare CR at the end of a name", get(b"A\r: b"), 400, "bad-request", "bare CR"),
    ("a NUL in a value", get(b"A: b\0c"), 400, "bad-request", "NUL"),
    ("a NUL in a name", get(b"A\0: b"), 400, "bad-request", "NUL"),
    ("a folded line", get(b"A: b", b" c"), 400, "bad-request", "obs-fold"),
    ("a line folded with a tab", get(b"A: b", b"\tc"), 400, "bad-request", "obs-fold"),
    ("a folded first field", get(b" A: b", host=b""), 400, "bad-request", "obs-fold"),
    ("a folded Transfer-Encoding", get(b"Transfer-Encoding:", b" chunked"), 400, "bad-request", "obs-fold"),
    ("no empty line", b"GET / HTTP/1.1\r\n" + H, 400, "bad-request", "does not end at its empty line"),
    ("an empty line with bare LF", b"GET / HTTP/1.1\r\n" + H + b"\n", 400, "bad-request", "bare LF"),
    ("bytes after the empty line", get() + b"x", 400, "bad-request", "does not end at its empty line"),
    ("a second request after it", get() + get(), 400, "bad-request", "does not end at its empty line"),
    ("half a head", b"GET / HTTP/1.1\r\nHost", 400, "bad-request", "does not end at its empty line"),
    # Names and values.
    ("a space before the colon", get(b"A : b"), 400, "bad-request", "bad header name"),
    ("a tab before the colon", get(b"A\t: b"), 400, "bad-request", "bad header name"),
    ("a space in a name", get(b"A B: c"), 400, "bad-request", "bad header name"),
    ("no colon", get(b"A"), 400, "bad-request", "bad header name"),
    ("an empty name", get(b": b"), 400, "bad-request", "bad header name"),
    ("a name with @", get(b"A@: b"), 400, "bad-request", "bad header name"),
    ("a name in quotes", get(b'"A": b'), 400, "bad-request", "bad header name"),
    ("a name over 127", get(b"\xc3\xa9: b"), 400, "bad-request", "bad header name"),
    ("a control character in a value", get(b"A: \x01"), 400, "bad-request", "control character"),
    ("a vertical tab in a value", get(b"A: \x0b"), 400, "bad-request", "control character"),
    ("DEL in a value", get(b"A: \x7f"), 400, "bad-request", "control character"),
    ("an escape in a value", get(b"A: \x1b[31m"), 400, "bad-request", "control character"),
    # Host.
    ("no Host", get(host=b""), 400, "bad-request", "no Host"),
    ("two Hosts", get(b"Host: b"), 400, "bad-request", "more than one Host"),
    ("the same Host twice", get(b"host: a"), 400, "bad-request", "more than one Host"),
    ("two Hosts in HTTP/1.0", get(b"Host: b", first=b"GET / HTTP/1.0"), 400, "bad-request", "more than one Host"),
    ("an empty Host", get(host=b"Host:\r\n"), 400, "host-invalid", "bad Host"),
    ("a Host with a user", get(host=b"Host: u@a\r\n"), 400, "host-invalid", "bad Host"),
    ("a Host with a path", get(host=b"Host: a/b\r\n"), 400, "host-invalid", "bad Host"),
    ("a Host with a space", get(host=b"Host: a b\r\n"), 400, "host-invalid", "bad Host"),
    ("a Host that is a list", get(host=b"Host: a, b\r\n"), 400, "host-invalid", "bad Host"),
    ("a Host with a percent sign", get(host=b"Host: a%2eb\r\n"), 400, "host-invalid", "bad Host"),
    ("a Host over 127", get(host=b"Host: \xc3\xa9\r\n"), 400, "host-invalid", "bad Host"),
    ("a Host with two ports", get(host=b"Host: a:1:2\r\n"), 400, "host-invalid", "bad Host"),
    ("a Host with a port of letters", get(host=b"Host: a:http\r\n"), 400, "host-invalid", "bad Host"),
    ("a Host with an empty port", get(host=b"Host: a:\r\n"), 400, "host-invalid", "bad Host"),
    ("a Host with an open bracket", get(host=b"Host: [::1\r\n"), 400, "host-invalid", "bad Host"),
    # The target.
    ("a target without a slash", get(first=b"GET a HTTP/1.1"), 400, "bad-request", "malformed request head"),
    ("* for GET", get(first=b"GET * HTTP/1.1"), 400, "target-invalid", "bad request target"),
    ("another scheme", get(first=b"GET ftp://a/ HTTP/1.1"), 400, "target-invalid", "bad request target"),
    ("another authority", get(first=b"GET http://b/ HTTP/1.1"), 400, "target-invalid", "disagree"),
    ("another port", get(first=b"GET http://a:81/ HTTP/1.1"), 400, "target-invalid", "disagree"),
    ("a user in the authority", get(first=b"GET http://u@a/ HTTP/1.1"), 400, "target-invalid", "disagree"),
    ("an empty authority", get(first=b"GET http:///x HTTP/1.1"), 400, "target-invalid", "disagree"),
    ("an authority that ends at ?", get(first=b"GET http://b?@a/ HTTP/1.1"), 400, "target-invalid", "disagree"),
    ("absolute without Host", get(first=b"GET http://a/ HTTP/1.0", host=b""), 400, "target-invalid", "disagree"),
    ("CONNECT to a path", get(first=b"CONNECT / HTTP/1.1"), 400, "authority-invalid", "host:port"),
    ("CONNECT without a port", get(first=b"CONNECT a HTTP/1.1"), 400, "authority-invalid", "host:port"),
    ("CONNECT to [::1] without a port", get(first=b"CONNECT [::1] HTTP/1.1"), 400, "authority-invalid", "host:port"),
    ("CONNECT with a user", get(first=b"CONNECT u@a:1 HTTP/1.1"), 400, "authority-invalid", "host:port"),
    ("a target over the limit", get(first=b"GET /" + b"x" * MAX_TARGET + b" HTTP/1.1"), 414, "uri-too-long", "8192"),
    # Framing.
    ("CL then TE", get(b"Content-Length: 5", CHUNKED[:-2]), 400, "bad-request", "can't be present with"),
    ("TE then CL", get(CHUNKED[:-2], b"Content-Length: 5"), 400, "bad-request", "can't be present with"),
    ("CL 0 with TE", get(CHUNKED[:-2], b"Content-Length: 0"), 400, "bad-request", "can't be present with"),
    ("CL twice, equal", get(b"Content-Length: 5", b"Content-Length: 5"), 400, "bad-request", "Content-Length"),
    ("CL twice, different", get(b"Content-Length: 5", b"Content-Length: 6"), 400, "bad-request", "Content-Length"),
    ("CL as a list", get(b"Content-Length: 5, 5"), 400, "bad-request", "Content-Length"),
    ("CL with a plus", get(b"Content-Length: +5"), 400, "bad-request", "Content-Length"),
    ("CL with a minus", get(b"Content-Length: -1"), 400, "bad-request", "Content-Length"),
    ("CL in hex", get(b"Content-Length: 0x5"), 400, "bad-request", "Content-Length"),
    ("CL with an underscore", get(b"Content-Length: 1_0"), 400, "bad-request", "Content-Length"),
    ("CL with a space inside", get(b"Content-Length: 1 0"), 400, "bad-request", "Content-Length"),
    ("CL of nothing", get(b"Content-Length:"), 400, "bad-request", "Content-Length"),
    ("CL over 64 bits", get(b"Content-Length: 99999999999999999999"), 400, "bad-request", "Content-Length"),
    ("CL over 18 digits", get(b"Content-Length: 1000000000000000000"), 400, "bad-request", "bad Content-Length"),
    ("TE of nothing", get(b"Transfer-Encoding:"), 400, "bad-request", "Transfer-Encoding"),
    ("TE chunked twice", get(CHUNKED[:-2], CHUNKED[:-2]), 400, "bad-request", "Transfer-Encoding"),
    ("TE chunked, chunked", get(b"Transfer-Encoding: chunked, chunked"), 400, "bad-request", "Transfer-Encoding"),
    ("TE chunked, then gzip", get(b"Transfer-Encoding: chunked, gzip"), 400, "bad-request", "Transfer-Encoding"),
    ("TE gzip", get(b"Transfer-Encoding: gzip"), 501, "transfer-coding", "gzip"),
    ("TE gzip, chunked", get(b"Transfer-Encoding: gzip, chunked"), 501, "transfer-coding", "gzip, chunked"),
    ("TE gzip and chunked", get(b"Transfer-Encoding: gzip", CHUNKED[:-2]), 501, "transfer-coding", "gzip"),
    ("TE identity", get(b"Transfer-Encoding: identity"), 501, "transfer-coding", "identity"),
    ("TE xchunked", get(b"Transfer-Encoding: xchunked"), 501, "transfer-coding", "xchunked"),
    ("TE chunked;x=y", get(b"Transfer-Encoding: chunked;x=y"), 501, "transfer-coding", "chunked;x=y"),
    ('TE "chunked"', get(b'Transfer-Encoding: "chunked"'), 501, "transfer-coding", '"chunked"'),
    ("TE with a vertical tab", get(b"Transfer-Encoding: \x0bchunked"), 400, "bad-request", "control character"),
    ("TE with a space before the colon", get(b"Transfer-Encoding : chunked"), 400, "bad-request", "bad header name"),
    ("TE in HTTP/1.0", get(CHUNKED[:-2], first=b"POST / HTTP/1.0"), 400, "bad-request", "in HTTP/1.0"),
    ("CONNECT with a body", get(b"Content-Length: 1", first=b"CONNECT a:1 HTTP/1.1"), 400, "bad-request", "with a"),
    (
        "TRACE with a body",
        get(b"Content-Length: 1", first=b"TRACE / HTTP/1.1"),
        400,
        "bad-request",
        "TRACE with a body",
    ),
    # The rest.
    ("an unknown expectation", get(b"Expect: 200-ok"), 417, "expectation-failed", "200-ok"),
    ("a second expectation", get(b"Expect: 100-continue", b"Expect: x"), 417, "expectation-failed", "'x'"),
    ("too many fields", get(*[b"A: b"] * MAX_FIELDS), 431, "head-too-large", "128 header fields"),
    ("too large", get(b"A: " + b"x" * MAX_REQUEST_HEAD), 431, "head-too-large", "32768 bytes"),
]


@pytest.mark.parametrize(
    ("head", "status", "code", "why"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_this_request_head_is_refused(head: bytes, status: int, code: str, why: str) -> None:
    with pytest.raises(HeadError) as caught:
        parse_request(head)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert why in str(caught.value)


ACCEPTED: list[tuple[str, bytes, dict[str, object]]] = [
    (
        "plain",
        get(),
        {"method": b"GET", "target": b"/", "minor": 1, "host": b"a", "body_length": 0, "keep_alive": True},
    ),
    ("one empty line before it", b"\r\n" + get(), {"method": b"GET", "target": b"/"}),
    ("a newer method", get(first=b"QUERY /a?b HTTP/1.1"), {"method": b"QUERY", "target": b"/a?b"}),
    ("odd characters", get(first=b'GET /%2e/"<>\\^`{|}~ HTTP/1.1'), {"target": b'/%2e/"<>\\^`{|}~'}),
    ("two slashes", get(first=b"GET //b/c HTTP/1.1"), {"target": b"//b/c"}),
    ("a scheme in the path", get(first=b"GET /http://b/ HTTP/1.1"), {"target": b"/http://b/"}),
    ("the longest target", get(first=b"GET /" + b"x" * (MAX_TARGET - 1) + b" HTTP/1.1"), {"body_length": 0}),
    ("the most fields", get(*[b"A: b"] * (MAX_FIELDS - 1)), {"body_length": 0}),
    ("absolute", get(first=b"GET http://a/x?y HTTP/1.1"), {"target": b"/x?y"}),
    ("absolute in capitals", get(first=b"GET HTTPS://A/x HTTP/1.1"), {"target": b"/x"}),
    ("absolute without a path", get(first=b"GET http://a HTTP/1.1"), {"target": b"/"}),
    ("absolute with a query alone", get(first=b"GET http://a?b/c HTTP/1.1"), {"target": b"/?b/c"}),
    ("absolute with a port", get(first=b"GET http://a:81/ HTTP/1.1", host=b"Host: a:81\r\n"), {"host": b"a:81"}),
    ("* for OPTIONS", get(first=b"OPTIONS * HTTP/1.1"), {"target": b"*"}),
    ("CONNECT", get(first=b"CONNECT a.b:5432 HTTP/1.1"), {"method": b"CONNECT", "target": b"a.b:5432"}),
    ("CONNECT to IPv6", get(first=b"CONNECT [::1]:443 HTTP/1.1"), {"target": b"[::1]:443"}),
    ("Host with IPv6", get(host=b"Host: [::1]:443\r\n"), {"host": b"[::1]:443"}),
    ("Host with spaces around", get(host=b"Host:\t a \t\r\n"), {"host": b"a"}),
    ("Host without a space", get(host=b"HOST:a\r\n"), {"host": b"a"}),
    ("HTTP/1.0", get(first=b"GET / HTTP/1.0"), {"minor": 0, "keep_alive": False}),
    ("HTTP/1.0 without Host", get(first=b"GET / HTTP/1.0", host=b""), {"host": b"", "minor": 0}),
    ("HTTP/1.0 keep-alive", get(b"Connection: Keep-Alive", first=b"GET / HTTP/1.0"), {"keep_alive": True}),
    ("close", get(b"Connection: foo, Close"), {"keep_alive": False, "connection": (b"foo", b"close")}),
    ("close in a second field", get(b"Connection: ,a,", b"Connection: close"), {"connection": (b"a", b"close")}),
    ("CL", get(b"Content-Length: 5"), {"body_length": 5}),
    ("CL with zeros", get(b"Content-Length: 005"), {"body_length": 5}),
    ("CL with spaces around", get(b"Content-Length: \t5 "), {"body_length": 5}),
    ("the largest CL", get(b"Content-Length: 999999999999999999"), {"body_length": 10**18 - 1}),
    ("chunked", get(CHUNKED[:-2]), {"body_length": UNKNOWN_LENGTH}),
    ("Chunked", get(b"transfer-encoding:Chunked "), {"body_length": UNKNOWN_LENGTH}),
    ("CL 0 with CONNECT", get(b"Content-Length: 0", first=b"CONNECT a:1 HTTP/1.1"), {"body_length": 0}),
    ("bytes over 127 in a value", get(b"A: \xc3\xa9"), {"body_length": 0}),
    ("an empty value", get(b"A:"), {"body_length": 0}),
    (
        "a WebSocket",
        get(b"Connection: keep-alive, Upgrade", b"Upgrade: websocket"),
        {"upgrade": b"websocket", "keep_alive": True},
    ),
    ("an upgrade with a body", get(b"Connection: upgrade", b"Upgrade: x", b"Content-Length: 3"), {"body_length": 3}),
    ("Upgrade without Connection", get(b"Upgrade: websocket"), {"upgrade": b""}),
    ("Connection without Upgrade", get(b"Connection: upgrade"), {"upgrade": b""}),
    ("two Upgrades", get(b"Connection: upgrade", b"Upgrade: a", b"Upgrade: b"), {"upgrade": b""}),
    ("h2c", get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: A"), {"upgrade": b""}),
    ("h2c in a list", get(b"Connection: upgrade", b"Upgrade: websocket, H2C"), {"upgrade": b""}),
    ("HTTP/1.0 upgrade", get(b"Connection: upgrade", b"Upgrade: a", first=b"GET / HTTP/1.0"), {"upgrade": b""}),
    ("expect", get(b"Expect: 100-Continue", b"Content-Length: 1"), {"expects_continue": True}),
    ("expect without a body", get(b"Expect: 100-continue"), {"expects_continue": False}),
    (
        "expect in HTTP/1.0",
        get(b"Expect: 100-continue", b"Content-Length: 1", first=b"POST / HTTP/1.0"),
        {"expects_continue": False},
    ),
]


@pytest.mark.parametrize(("head", "expected"), [case[1:] for case in ACCEPTED], ids=[case[0] for case in ACCEPTED])
def test_this_request_head_is_accepted(head: bytes, expected: dict[str, object]) -> None:
    request = parse_request(head)
    assert {name: getattr(request, name) for name in expected} == expected


def test_fields_keep_their_order_and_case_and_lose_the_space_around_them() -> None:
    request = parse_request(get(b"X-One: 1 ", b"x-one:\t2", b"X-Two:3"))
    assert request.fields[1:] == [
        (b"x-one", b"X-One", b"1"),
        (b"x-one", b"x-one", b"2"),
        (b"x-two", b"X-Two", b"3"),
    ]
    assert request.get(b"x-one") == b"1"
    assert request.get(b"x-none") == b""


def test_only_end_to_end_fields_are_forwarded() -> None:
    request = parse_request(
        get(
            b"Accept: */*",
            b"Connection: close, X-Hop",
            b"X-Hop: 1",
            b"Keep-Alive: timeout=5",
            b"Proxy-Authorization: Basic x",
            b"Proxy-Connection: close",
            b"TE: trailers, deflate",
            b"Upgrade: websocket",
            b"Content-Length: 0",
            b"X-Forwarded-For: 1.2.3.4",
            b"Forwarded: for=1.2.3.4",
            b"X-Real-IP: 1.2.3.4",
            b"Via: 1.1 x",
            b"traceparent: 00-x",
            b"X-Request-Id: 1",
            b"Platform-Identity: admin",
            b"Authorization: Bearer x",
            b"X-My_Own: kept",
        )
    )
    assert request.block() == b"Accept: */*\r\nAuthorization: Bearer x\r\nX-My_Own: kept\r\nTE: trailers\r\n"
    assert request.block(frozenset({b"authorization"})) == b"Accept: */*\r\nX-My_Own: kept\r\nTE: trailers\r\n"


def test_te_without_trailers_is_not_forwarded() -> None:
    assert parse_request(get(b"TE: deflate")).block() == b""


@pytest.mark.parametrize(
    "line",
    [
        b"Platform_Identity: admin",
        b"platform-groups: admin",
        b"X_Forwarded_For: 1.2.3.4",
        b"X-Forwarded_Proto: https",
        b"X_Secret: dropped by the caller",
        b"Transfer_Encoding: chunked",
    ],
)
def test_a_name_that_cgi_reads_as_one_of_ours_is_not_forwarded(line: bytes) -> None:
    assert parse_request(get(line)).block(frozenset({b"x-secret"})) == b""


def test_our_own_checks_hold_where_llhttp_is_first_to_refuse() -> None:
    with pytest.raises(HeadError, match="both Content-Length and Transfer-Encoding"):
        _set_request_length(RequestHead(), [b"5"], [b"chunked"])
    with pytest.raises(HeadError, match="not complete"):
        _parsed_fields(b"GET / HTTP/1.1\r\nHost: a\r\n")
