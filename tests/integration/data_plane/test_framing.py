"""Requests whose end can be read in two ways, or not at all: the exact answer, on each of the hub's HTTP listeners."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.integration.data_plane.conftest import Platform
from tests.integration.data_plane.peers import Peer, ok, serving

pytestmark = pytest.mark.integration

LISTENERS = ("http", "public", "metrics")
POST = "POST /s/sat-1/plain/ HTTP/1.1\r\nHost: hub.test\r\n"

CODED = POST + "Transfer-Encoding: "
GET = "GET / HTTP/1.1\r\nHost: hub.test\r\n"

REFUSED = {
    "length and coding": (POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0", 400, "bad-request"),
    "coding and length": (CODED + "chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, "bad-request"),
    "two lengths": (POST + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400, "bad-request"),
    "twice the same length": (POST + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400, "bad-request"),
    "a list of lengths": (POST + "Content-Length: 5, 5\r\n\r\nhello", 400, "bad-request"),
    "a signed length": (POST + "Content-Length: +5\r\n\r\nhello", 400, "bad-request"),
    "a negative length": (POST + "Content-Length: -1\r\n\r\n", 400, "bad-request"),
    "a hexadecimal length": (POST + "Content-Length: 0x5\r\n\r\nhello", 400, "bad-request"),
    "an endless length": (POST + "Content-Length: " + "9" * 30 + "\r\n\r\n", 400, "bad-request"),
    "an empty length": (POST + "Content-Length:\r\n\r\n", 400, "bad-request"),
    "an unknown coding": (POST + "Transfer-Encoding: gzip\r\n\r\n", 501, "transfer-coding"),
    "chunked not last": (POST + "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400, "bad-request"),
    "two codings": (POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "transfer-coding"),
    "chunked twice": (CODED + "chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad-request"),
    "a disguised coding": (POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, "transfer-coding"),
    "a coding with a vertical tab": (POST + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400, "bad-request"),
    "coding in 1.0": (
        "POST / HTTP/1.0\r\nHost: hub.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad-request",
    ),
    "space before the colon": (POST + "Content-Length : 5\r\n\r\nhello", 400, "bad-request"),
    "a folded line": (POST + "X-A: 1\r\n folded\r\n\r\n", 400, "bad-request"),
    "a folded first line": ("GET / HTTP/1.1\r\n X: y\r\nHost: hub.test\r\n\r\n", 400, "bad-request"),
    "a bare LF at a line's end": ("GET / HTTP/1.1\r\nHost: hub.test\nX-A: 1\r\n\r\n", 400, "bad-request"),
    "bare LFs alone": ("GET / HTTP/1.1\nHost: hub.test\n\n", 400, "bad-request"),
    "a bare CR in a value": ("GET / HTTP/1.1\r\nHost: hub.test\r\nX-A: a\rb\r\n\r\n", 400, "bad-request"),
    "a NUL in a value": ("GET / HTTP/1.1\r\nHost: hub.test\r\nX-A: a\0b\r\n\r\n", 400, "bad-request"),
    "two hosts": ("GET / HTTP/1.1\r\nHost: hub.test\r\nHost: other.test\r\n\r\n", 400, "bad-request"),
    "twice the same host": ("GET / HTTP/1.1\r\nHost: hub.test\r\nHost: hub.test\r\n\r\n", 400, "bad-request"),
    "no host": ("GET / HTTP/1.1\r\nX-A: 1\r\n\r\n", 400, "bad-request"),
    "a host with a path": ("GET / HTTP/1.1\r\nHost: hub.test/x\r\n\r\n", 400, "host-invalid"),
    "a host with a user": ("GET / HTTP/1.1\r\nHost: a@hub.test\r\n\r\n", 400, "host-invalid"),
    "target and host disagree": ("GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n", 400, "target-invalid"),
    "a relative target": ("GET x HTTP/1.1\r\nHost: hub.test\r\n\r\n", 400, "bad-request"),
    "a space in the target": ("GET /a b HTTP/1.1\r\nHost: hub.test\r\n\r\n", 400, "bad-request"),
    "no version": ("GET /\r\nHost: hub.test\r\n\r\n", 400, "bad-request"),
    "HTTP/2.0": ("GET / HTTP/2.0\r\nHost: hub.test\r\n\r\n", 505, "http-version"),
    "the HTTP/2 preface": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http-version"),
    "HTTP/1.2": ("GET / HTTP/1.2\r\nHost: hub.test\r\n\r\n", 505, "http-version"),
    "no HTTP": ("\x16\x03\x01\x02\r\n\r\n", 400, "bad-request"),
    "a name that is no token": ("GET / HTTP/1.1\r\nHost: hub.test\r\nX(A): 1\r\n\r\n", 400, "bad-request"),
    "an empty name": ("GET / HTTP/1.1\r\nHost: hub.test\r\n: 1\r\n\r\n", 400, "bad-request"),
    "an unknown expectation": (POST + "Expect: a-miracle\r\nContent-Length: 1\r\n\r\nx", 417, "expectation-failed"),
    "a target that is too long": ("GET /" + "a" * 9000 + " HTTP/1.1\r\nHost: hub.test\r\n\r\n", 414, "uri-too-long"),
    "a head that is too large": (GET + "X-A: " + "a" * 33000 + "\r\n\r\n", 431, "head-too-large"),
    "a head without an end": ("GET / HTTP/1.1\r\nHost: hub.test\r\n" + "X-A: a\r\n" * 5000, 431, "head-too-large"),
    "too many fields": ("GET / HTTP/1.1\r\nHost: hub.test\r\n" + "X-A: a\r\n" * 200 + "\r\n", 431, "head-too-large"),
    "CONNECT with a body": ("CONNECT a.b:1 HTTP/1.1\r\nHost: a.b:1\r\nContent-Length: 1\r\n\r\na", 400, "bad-request"),
    "CONNECT without a port": ("CONNECT raw.sat-1 HTTP/1.1\r\nHost: raw.sat-1\r\n\r\n", 400, "authority-invalid"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LISTENERS)
@pytest.mark.parametrize("case", REFUSED)
async def test_a_request_that_is_not_clear_is_refused_and_the_connection_closed(
    platform: Platform, case: str, kind: str
) -> None:
    text, status, code = REFUSED[case]
    smuggled = b"GET /s/sat-1/plain/smuggled HTTP/1.1\r\nHost: hub.test\r\n\r\n"
    async with await platform.connect(kind) as peer:
        await peer.send(text.encode("latin-1") + smuggled)
        answer = await peer.answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (status, code)
        assert answer.head.get("content-type") == "application/problem+json"
        assert answer.head.get("connection") == "close"
        assert await peer.closed() == b""  # no second answer: what followed was not read as a request


CHUNKS = {
    "a size that is no number": b"zz\r\nabc\r\n0\r\n\r\n",
    "a signed size": b"+3\r\nabc\r\n0\r\n\r\n",
    "a size with 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "an endless size": b"f" * 17 + b"\r\nabc",
    "a chunk without its CRLF": b"3\r\nabcd\r\n0\r\n\r\n",
    "a size line with a bare LF": b"3\nabc\r\n0\r\n\r\n",
    "a bare LF after a chunk": b"3\r\nabc\n0\r\n\r\n",
    "a size line that is too long": b"3;" + b"x" * 300 + b"\r\nabc\r\n0\r\n\r\n",
    "a trailer that is no field": b"3\r\nabc\r\n0\r\nnonsense\r\n\r\n",
    "a folded trailer": b"3\r\nabc\r\n0\r\nX: a\r\n b\r\n\r\n",
}


@pytest.mark.parametrize("kind", ["http", "public"])
@pytest.mark.parametrize("case", CHUNKS)
async def test_a_broken_chunk_is_refused_and_the_backend_never_sees_a_whole_request(
    platform: Platform, case: str, kind: str
) -> None:
    began = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        assert await peer.read(8) == b"3\r\none\r\n"
        began.set()
        got = await peer.closed()
        assert b"0\r\n" not in got

    async with platform.backend("plain", script) as backend:
        async with await platform.connect(kind) as peer:
            await peer.send(platform.head("POST", "/", "Transfer-Encoding: chunked") + b"3\r\none\r\n")
            await began.wait()
            await peer.send(CHUNKS[case])
            answer = await peer.answer()
            assert (answer.status, json.loads(answer.body)["code"]) == (400, "bad-chunk")
            assert answer.head.get("connection") == "close"
            assert await peer.closed() == b""
        await backend.done()


async def test_trailers_that_are_too_large_are_refused(platform: Platform) -> None:
    async with platform.backend("plain", serving()), await platform.connect() as peer:
        trailers = b"".join(b"X-%d: %b\r\n" % (n, b"x" * 200) for n in range(60))
        await peer.send(platform.head("POST", "/", "Transfer-Encoding: chunked") + b"0\r\n" + trailers + b"\r\n")
        assert (await peer.answer()).status == 431
        assert await peer.closed() == b""


async def test_a_chunk_that_breaks_after_the_response_began_cuts_the_connection(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await peer.closed()

    async with platform.backend("plain", script) as backend:
        async with await platform.connect() as peer:
            await peer.send(platform.head("POST", "/", "Transfer-Encoding: chunked") + b"1\r\na\r\n")
            assert (await peer.head()).status == 200
            assert await peer.read(8) == b"3\r\none\r\n"
            await peer.send(b"zz\r\n")
            assert await peer.closed() == b""  # neither a last chunk nor a second head in the middle of the body
        await backend.done()


GOOD = {
    "chunk extensions": b'3;a=b;c="d"\r\nabc\r\n0;last\r\n\r\n',
    "upper case and leading zeros": b"00000003\r\nabc\r\n000\r\n\r\n",
}


@pytest.mark.parametrize("case", GOOD)
async def test_unusual_but_right_chunks_are_taken_and_sent_on_plainly(platform: Platform, case: str) -> None:
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.head()
        got.append(await peer.read(len(b"3\r\nabc\r\n0\r\n\r\n")))
        await peer.send(ok())

    async with platform.backend("plain", script), await platform.connect() as peer:
        await peer.send(platform.head("POST", "/", "Transfer-Encoding: Chunked") + GOOD[case])
        assert (await peer.answer()).status == 200
    assert got == [b"3\r\nabc\r\n0\r\n\r\n"]


async def test_empty_lines_before_a_request_are_ignored(platform: Platform) -> None:
    async with platform.backend("plain", serving()), await platform.connect() as peer:
        for _ in range(2):
            await peer.send(b"\r\n" + platform.head("GET", "/"))
            assert (await peer.answer()).status == 200


async def test_a_target_in_absolute_form_is_reduced_to_its_path(platform: Platform) -> None:
    async with platform.backend("plain", serving(lambda head, body: ok(head.first.encode()))):
        request = platform.head("GET", "/x").replace(b"GET /", b"GET http://hub.test/", 1)
        assert (await platform.ask(request)).body == b"GET /x HTTP/1.1"


@pytest.mark.parametrize("kind", LISTENERS)
async def test_a_head_that_does_not_come_to_its_end_is_given_up(platform: Platform, kind: str) -> None:
    async with await platform.connect(kind) as peer:
        for byte in b"GET / HTTP/1.1\r\nHost: h":
            peer.writer.write(bytes([byte]))
        await peer.writer.drain()
        if kind == "metrics":
            peer.cut()  # ten seconds there: too long for a test, and the same code
            return
        # Byte after byte does not buy more time.
        for _ in range(12):
            if peer.reader.at_eof() or peer.reader._buffer:  # type: ignore[attr-defined]
                break
            peer.writer.write(b"x")
            await asyncio.sleep(0.2)
        answer = await peer.answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (408, "head-timeout")
        assert await peer.closed() == b""
