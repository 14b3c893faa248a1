"""Response heads from hostile backends, and header blocks from hostile agents."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platformctl.errors import FrameError, HeadError
from platformctl.wire.fields import HOP_BY_HOP, MAX_FIELDS
from platformctl.wire.frames import MAX_HEAD, UNKNOWN_LENGTH
from platformctl.wire.heads import clean_block, clean_trailers, parse_response, split_block


def answer(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return first + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


REFUSED = [
    ("nothing", b"", b"GET", "bad status line"),
    ("another protocol", b"SSH-2.0-OpenSSH\r\n\r\n", b"GET", "bad status line"),
    ("HTTP/0.9", b"<html>\r\n\r\n", b"GET", "bad status line"),
    ("HTTP/2", answer(first=b"HTTP/2.0 200 OK"), b"GET", "bad status line"),
    ("HTTP/1.2", answer(first=b"HTTP/1.2 200 OK"), b"GET", "bad status line"),
    ("status 600", answer(first=b"HTTP/1.1 600 X"), b"GET", "bad status line"),
    ("status 099", answer(first=b"HTTP/1.1 099 X"), b"GET", "bad status line"),
    ("a status of two digits", answer(first=b"HTTP/1.1 20 OK"), b"GET", "bad status line"),
    ("a status of four digits", answer(first=b"HTTP/1.1 2000 OK"), b"GET", "bad status line"),
    ("two spaces", answer(first=b"HTTP/1.1  200 OK"), b"GET", "bad status line"),
    ("a control character in the reason", answer(first=b"HTTP/1.1 200 \x1b"), b"GET", "bad status line"),
    ("a bare LF", b"HTTP/1.1 200 OK\nA: b\r\n\r\n", b"GET", "bad status line"),
    ("a bare LF in the fields", answer(b"A: b\nSet-Cookie: x"), b"GET", "bare LF"),
    ("a bare CR", answer(b"A: b\rSet-Cookie: x"), b"GET", "bare CR"),
    ("a NUL", answer(b"A: \0"), b"GET", "NUL"),
    ("a folded line", answer(b"A: b", b" c"), b"GET", "obs-fold"),
    ("a space before the colon", answer(b"A : b"), b"GET", "bad header name"),
    ("no colon", answer(b"A"), b"GET", "bad header name"),
    ("a control character", answer(b"A: \x01"), b"GET", "control character"),
    ("an end too early", answer() + b"A: b\r\n\r\n", b"GET", "empty line"),
    ("no end", b"HTTP/1.1 200 OK\r\n", b"GET", "empty line"),
    ("half an end", b"HTTP/1.1 200 OK\r\nA: b\r\n", b"GET", "empty line"),
    ("TE and CL", answer(b"Transfer-Encoding: chunked", b"Content-Length: 1"), b"GET", "both Content-Length and"),
    ("TE in HTTP/1.0", answer(b"Transfer-Encoding: chunked", first=b"HTTP/1.0 200 OK"), b"GET", "HTTP/1.0 with"),
    ("TE gzip", answer(b"Transfer-Encoding: gzip"), b"GET", "transfer coding 'gzip'"),
    ("TE gzip, chunked", answer(b"Transfer-Encoding: gzip, chunked"), b"GET", "transfer coding 'gzip, chunked'"),
    ("TE twice", answer(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), b"GET", "transfer coding"),
    ("TE of nothing", answer(b"Transfer-Encoding:"), b"GET", "transfer coding ''"),
    ("two lengths", answer(b"Content-Length: 1", b"Content-Length: 2"), b"GET", "more than one Content-Length"),
    ("a list of lengths", answer(b"Content-Length: 1, 1"), b"GET", "bad Content-Length"),
    ("a negative length", answer(b"Content-Length: -1"), b"GET", "bad Content-Length"),
    ("a length of nothing", answer(b"Content-Length:"), b"GET", "bad Content-Length"),
    ("too many fields", answer(*[b"A: b"] * (MAX_FIELDS + 1)), b"GET", "128 header fields"),
    ("a CONNECT that was accepted", answer(), b"CONNECT", "CONNECT that was not sent"),
]


@pytest.mark.parametrize(("head", "method", "why"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_this_response_head_is_the_backend_s_fault(head: bytes, method: bytes, why: str) -> None:
    with pytest.raises(HeadError) as caught:
        parse_response(head, method)
    assert (caught.value.status, caught.value.code) == (502, "bad-backend-response")
    assert why in str(caught.value)


CL5 = b"Content-Length: 5"
ACCEPTED = [
    ("a length", answer(CL5), b"GET", {"status": 200, "body_length": 5, "keep_alive": True, "until_close": False}),
    ("a length twice", answer(CL5, CL5), b"GET", {"body_length": 5}),
    ("an empty body", answer(b"Content-Length: 0"), b"GET", {"body_length": 0, "declared": -1}),
    ("chunked", answer(b"Transfer-Encoding: Chunked"), b"GET", {"body_length": UNKNOWN_LENGTH, "until_close": False}),
    ("until close", answer(), b"GET", {"body_length": UNKNOWN_LENGTH, "until_close": True, "keep_alive": False}),
    ("no reason", answer(CL5, first=b"HTTP/1.1 200"), b"GET", {"status": 200, "body_length": 5}),
    ("a reason over 127", answer(CL5, first=b"HTTP/1.1 200 \xc3\xa9"), b"GET", {"status": 200}),
    ("close", answer(CL5, b"Connection: Close"), b"GET", {"keep_alive": False}),
    ("HTTP/1.0", answer(CL5, first=b"HTTP/1.0 200 OK"), b"GET", {"keep_alive": False, "body_length": 5}),
    (
        "HTTP/1.0 that stays",
        answer(CL5, b"Connection: keep-alive", first=b"HTTP/1.0 200 OK"),
        b"GET",
        {"keep_alive": True},
    ),
    ("HEAD", answer(CL5), b"HEAD", {"body_length": 0, "declared": 5, "keep_alive": True, "until_close": False}),
    ("HEAD, chunked", answer(b"Transfer-Encoding: chunked"), b"HEAD", {"body_length": 0, "declared": -1}),
    ("304", answer(CL5, first=b"HTTP/1.1 304 Not Modified"), b"GET", {"body_length": 0, "declared": 5}),
    ("204", answer(CL5, first=b"HTTP/1.1 204 No Content"), b"GET", {"body_length": 0, "declared": -1}),
    ("100", answer(CL5, first=b"HTTP/1.1 100 Continue"), b"GET", {"body_length": 0, "declared": -1}),
    ("103", answer(b"Link: x", first=b"HTTP/1.1 103 Hints"), b"GET", {"status": 103, "block": b"Link: x\r\n"}),
    (
        "101",
        answer(b"Upgrade: websocket", b"Connection: Upgrade", first=b"HTTP/1.1 101 Switching"),
        b"GET",
        {"upgrade": b"websocket", "body_length": 0, "block": b""},
    ),
    ("101 without Upgrade", answer(first=b"HTTP/1.1 101 Switching"), b"GET", {"upgrade": b""}),
    ("a CONNECT that was refused", answer(CL5, first=b"HTTP/1.1 403 No"), b"CONNECT", {"body_length": 5}),
]


@pytest.mark.parametrize(
    ("head", "method", "expected"), [case[1:] for case in ACCEPTED], ids=[case[0] for case in ACCEPTED]
)
def test_this_response_head_is_accepted(head: bytes, method: bytes, expected: dict[str, object]) -> None:
    response = parse_response(head, method)
    assert {name: getattr(response, name) for name in expected} == expected


def test_only_end_to_end_fields_of_a_response_are_forwarded() -> None:
    response = parse_response(
        answer(
            b"Server:  nginx ",
            b"Connection: X-Hop",
            b"X-Hop: 1",
            b"Keep-Alive: timeout=5",
            b"Proxy-Authenticate: Basic",
            b"Content-Length: 0",
            b"Set-Cookie: a=b",
            b"Set-Cookie: c=d",
        ),
        b"GET",
    )
    assert response.block == b"Server: nginx\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n"


@pytest.mark.parametrize(
    "block",
    [
        b"\r\n",
        b"A: b\r\n\r\n",
        b"A: b\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"A: b",
        b"A: b\n",
        b"A: b\rB: c\r\n",
        b"A : b\r\n",
        b" A: b\r\n",
        b"A: b\r\n c\r\n",
        b": b\r\n",
        b"A: \0\r\n",
        b"A: \x7f\r\n",
        b"A\r\n",
        b"\xff: b\r\n",
    ],
)
def test_a_block_that_could_be_read_as_something_else_is_refused(block: bytes) -> None:
    for check in (clean_block, clean_trailers, split_block):
        with pytest.raises(FrameError, match="well-formed"):
            check(block)


def test_a_clean_block_stays_as_it_is() -> None:
    block = b"Server: x\r\nX-Odd:y \r\nContent-Type: text/plain\r\nx-te: 1\r\n"
    assert clean_block(block) is block
    assert clean_block(b"") == b""


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP | {b"content-length"}))
def test_an_agent_has_no_say_about_the_client_s_connection(name: bytes) -> None:
    for spelled in (name, name.upper(), name.title()):
        line = spelled + b": x\r\n"
        assert clean_block(line + b"A: b\r\n") == clean_block(b"A: b\r\n" + line) == b"A: b\r\n"


def test_a_block_has_a_bounded_number_of_fields() -> None:
    assert clean_block(b"A: b\r\n" * MAX_FIELDS)
    for check in (clean_block, clean_trailers):
        with pytest.raises(FrameError, match="more than 128"):
            check(b"A: b\r\n" * (MAX_FIELDS + 1))


def test_trailers_that_must_not_come_late_are_dropped() -> None:
    assert (
        clean_trailers(
            b"Content-Length: 5\r\nHost: x\r\nSet-Cookie: a\r\nPlatform-Identity: x\r\nplatform_identity: y\r\n"
            b"Checksum: 1\r\nTransfer-Encoding: chunked\r\nX_Forwarded_For: 1\r\nGrpc-Status: 0\r\n"
        )
        == b"Checksum: 1\r\nGrpc-Status: 0\r\n"
    )


@pytest.mark.parametrize("check", [clean_block, clean_trailers, split_block])
@pytest.mark.parametrize("filler", [b" ", b"\t", b"a", b":", b"a:\r\n", b"a: \r\n"])
def test_no_block_takes_more_than_one_pass(check: object, filler: bytes) -> None:
    block = b"A:" + filler * (MAX_HEAD // len(filler)) + b"\x01"
    started = time.perf_counter()
    with pytest.raises(FrameError):
        check(block)  # type: ignore[operator]
    assert time.perf_counter() - started < 0.5


@given(st.binary(max_size=60) | st.text("aA:\r\n \t\x01-", max_size=40).map(str.encode))
def test_what_passes_is_made_of_lines_alone(block: bytes) -> None:
    try:
        cleaned = clean_block(block)
    except FrameError:
        return
    assert not cleaned or cleaned.endswith(b"\r\n")
    for line in cleaned.split(b"\r\n")[:-1]:
        name, colon, value = line.partition(b":")
        assert colon
        assert name
        assert not set(name) & set(b" \t\r\n\0")
        assert not set(value) & set(b"\r\n\0")
    assert clean_block(cleaned) == cleaned
