"""Backends that answer wrongly: the client gets a 502 or a cut connection, and never something that looks whole."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.integration.data_plane.conftest import Platform
from tests.integration.data_plane.peers import Peer, ok, serving

pytestmark = pytest.mark.integration

OK = "HTTP/1.1 200 OK\r\n"

# Wrong before the head is complete: a clean 502.
REFUSED = {
    "two lengths": OK + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "length and coding": OK + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": OK + "Transfer-Encoding: gzip\r\n\r\nxx",
    "a coding in 1.0": "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length that is no number": OK + "Content-Length: two\r\n\r\nok",
    "a folded line": OK + "X-A: 1\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "a bare LF": OK + "X-A: 1\nSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nok",
    "a bare CR": OK + "X-A: 1\rX-B: 2\r\nContent-Length: 2\r\n\r\nok",
    "a NUL": OK + "X-A: \0\r\nContent-Length: 2\r\n\r\nok",
    "a space before the colon": OK + "Content-Length : 2\r\n\r\nok",
    "no status": "HTTP/1.1 OK\r\n\r\n",
    "a status of four digits": "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "status 600": "HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok",
    "another protocol": "SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
    "another version": "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a 101 that nobody asked for": "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw",
    "a head without an end": OK + "X-A: a\r\n" * 9000,
    "a head that is too large": OK + "X-A: " + "a" * 70000 + "\r\n\r\n",
    "too many fields": OK + "X-A: a\r\n" * 200 + "\r\n",
    "half a head": "HTTP/1.1 200 OK\r\nContent-Le",
    "nothing": "",
}


async def others_are_fine(platform: Platform) -> None:
    """Requests of the same service that began before, and begin after."""
    answer = await platform.get("/well")
    assert (answer.status, answer.body) == (200, b"well")


def wrong_for(path: str, raw: bytes, *, hold: bool = False) -> object:
    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            if head.first.split()[1] == path:
                await peer.send(raw)
                if hold:
                    await peer.closed()
                return
            await peer.send(ok(b"well"))

    return script


@pytest.mark.parametrize("case", REFUSED)
async def test_a_response_that_is_no_http_is_a_502(platform: Platform, case: str) -> None:
    async with platform.backend("plain", wrong_for("/bad", REFUSED[case].encode("latin-1"))):  # type: ignore[arg-type]
        async with await platform.connect() as peer:
            await peer.send(platform.head("GET", "/bad"))
            answer = await peer.answer()
            problem = json.loads(answer.body)
            expected = "backend-failed" if case in ("nothing", "half a head") else "bad-backend-response"
            assert (answer.status, problem["code"]) == (502, expected)
            assert problem["request_id"] == answer.head.get("x-request-id")
            assert "evil" not in str(answer.head.fields)
            # The client's connection is as good as before.
            await peer.send(platform.head("GET", "/well"))
            assert (await peer.answer()).body == b"well"
        await others_are_fine(platform)


CUT = {
    "a body that is too short": OK + "Content-Length: 10\r\n\r\nshort",
    "a bad chunk size": OK + "Transfer-Encoding: chunked\r\n\r\n3\r\none\r\nzz\r\n",
    "a chunk without its CRLF": OK + "Transfer-Encoding: chunked\r\n\r\n3\r\noneX\r\n0\r\n\r\n",
    "no last chunk": OK + "Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n",
    "a bad trailer": OK + "Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\nbad trailer\r\n\r\n",
}


@pytest.mark.parametrize("kind", ["http", "public"])
@pytest.mark.parametrize("case", CUT)
async def test_a_body_that_goes_wrong_cuts_the_connection(platform: Platform, case: str, kind: str) -> None:
    async with platform.backend("plain", wrong_for("/bad", CUT[case].encode())):  # type: ignore[arg-type]
        async with await platform.connect(kind) as peer:
            await peer.send(platform.head("GET", "/bad", "Connection: close"))
            got = await peer.closed()
            # A 502, when nothing had been written yet; else less than a whole response.
            if got.startswith(b"HTTP/1.1 502"):
                assert b"bad-backend-response" in got or b"backend-failed" in got
            elif got:
                assert b"0\r\n\r\n" not in got[-5:]
                assert not got.endswith(b"X" * 10)
                assert got.startswith(b"HTTP/1.1 200 OK")
        await others_are_fine(platform)


async def test_what_follows_a_whole_body_reaches_no_client(platform: Platform) -> None:
    extra = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    async with platform.backend("plain", wrong_for("/bad", ok(b"good") + extra, hold=True)) as backend:  # type: ignore[arg-type]
        async with await platform.connect() as peer:
            await peer.send(platform.head("GET", "/bad"))
            assert (await peer.answer()).body == b"good"
            assert await peer.is_quiet()
            await peer.send(platform.head("GET", "/well"))
            assert (await peer.answer()).body == b"well"
        assert backend.connections == 2  # the one that said too much is not used again


async def test_a_backend_that_speaks_out_of_turn_is_not_believed(platform: Platform) -> None:
    spoke = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"good"))
        await asyncio.sleep(0.05)
        await peer.send(ok(b"evil"))
        spoke.set()
        await peer.closed()

    async with platform.backend("plain", script, serving(ok(b"well"))):
        assert (await platform.get()).body == b"good"
        await spoke.wait()
        await asyncio.sleep(0.05)
        assert (await platform.get()).body == b"well"


async def test_a_head_response_with_a_body_spoils_nothing(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b"a body that HEAD must not have"))
        await peer.closed()

    async with platform.backend("plain", script, serving(ok(b"well"))), await platform.connect() as peer:
        await peer.send(platform.head("HEAD", "/"))
        assert (await peer.answer("HEAD")).head.get("content-length") == "30"
        await peer.send(platform.head("GET", "/"))
        assert (await peer.answer()).body == b"well"


async def test_an_upgrade_can_be_refused_by_the_backend(platform: Platform) -> None:
    async with (
        platform.backend("plain", serving(ok(b"no", status="426 Upgrade Required"))),
        await platform.connect() as peer,
    ):
        await peer.send(platform.head("GET", "/", "Connection: upgrade", "Upgrade: foo"))
        assert (await peer.answer()).status == 426
        await peer.send(platform.head("GET", "/"))
        assert (await peer.answer()).status == 426
