from __future__ import annotations

import asyncio

import pytest

from tests.integration.data_plane.conftest import Platform
from tests.integration.data_plane.peers import Head, Peer, ok, serving

pytestmark = pytest.mark.integration

PLAIN = serving(lambda head, body: ok(b"%b|%b" % (head.first.split()[1].encode(), body)))


@pytest.mark.parametrize("kind", ["http", "public"])
async def test_a_connection_is_kept_for_many_requests(platform: Platform, kind: str) -> None:
    async with platform.backend("plain", PLAIN) as backend, await platform.connect(kind) as peer:
        for n in range(5):
            await peer.send(platform.head("GET", f"/{n}"))
            answer = await peer.answer()
            assert (answer.status, answer.body) == (200, b"/%d|" % n)
            assert answer.head.get("connection") is None
        # The same head again and again is answered without being parsed.
        for _ in range(3):
            await peer.send(platform.head("GET", "/same"))
            assert (await peer.answer()).body == b"/same|"
        assert backend.connections == 1


async def test_a_thousand_pipelined_requests_are_answered_in_order(platform: Platform) -> None:
    async with platform.backend("plain", PLAIN), await platform.connect() as peer:
        await peer.send(b"".join(platform.head("GET", f"/{n}") for n in range(1000)))
        for n in range(1000):
            assert (await peer.answer()).body == b"/%d|" % n


async def test_a_thousand_pipelined_requests_that_are_refused_are_answered_in_order(platform: Platform) -> None:
    request = b"POST /s/sat-1/plain/ HTTP/1.1\r\nHost: hub.test\r\nContent-Length: 5\r\n\r\n12345"
    async with await platform.connect() as peer:
        await peer.send(request * 1000)
        for _ in range(1000):
            assert (await peer.answer()).status == 401


async def test_pipelined_requests_with_bodies_keep_their_own(platform: Platform) -> None:
    async with platform.backend("plain", PLAIN), await platform.connect() as peer:
        chunked = platform.head("POST", "/b", "Transfer-Encoding: chunked")
        await peer.send(
            platform.head("POST", "/a", "Content-Length: 3")
            + b"one"
            + chunked
            + b"2\r\ntw\r\n1;ext=1\r\no\r\n0\r\n\r\n"
            + platform.head("GET", "/c")
            + platform.head("PUT", "/d", "Content-Length: 0")
        )
        assert [(await peer.answer()).body for _ in range(4)] == [b"/a|one", b"/b|two", b"/c|", b"/d|"]


async def test_a_request_may_come_byte_by_byte(platform: Platform) -> None:
    async with platform.backend("plain", PLAIN), await platform.connect() as peer:
        request = platform.head("POST", "/slow", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"
        for at in range(len(request)):
            peer.writer.write(request[at : at + 1])
            if at % 16 == 0:
                await asyncio.sleep(0.001)
        assert (await peer.answer()).body == b"/slow|abc"


async def test_head_has_the_length_and_no_body(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        for _ in range(2):
            head = await peer.head()
            await peer.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n" + b"x" * 1234 * head.first.startswith("G")
            )

    async with platform.backend("plain", script), await platform.connect() as peer:
        await peer.send(platform.head("HEAD", "/"))
        answer = await peer.answer("HEAD")
        assert answer.head.get("content-length") == "1234"
        await peer.send(platform.head("GET", "/"))
        assert len((await peer.answer()).body) == 1234


@pytest.mark.parametrize(
    "head",
    [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 77\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_whatever_head_is_answered_with_has_no_body(platform: Platform, head: str) -> None:
    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.head()
            await peer.send(head.encode())

    async with platform.backend("plain", script), await platform.connect() as peer:
        for _ in range(2):
            await peer.send(platform.head("HEAD", "/"))
            answer = await peer.answer("HEAD")
            assert answer.head.first == head.split("\r\n")[0]
        assert await peer.is_quiet()


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nX-A: 1\r\nContent-Length: 9\r\n\r\n",
    ],
)
async def test_a_response_that_cannot_have_a_body_has_none(platform: Platform, raw: bytes) -> None:
    async with platform.backend("plain", serving(raw)), await platform.connect() as peer:
        for _ in range(2):
            await peer.send(platform.head("GET", "/"))
            answer = await peer.answer()
            assert answer.status in (204, 304)
            assert answer.head.get("x-a") == "1"
            assert answer.head.get("content-length") == ("9" if answer.status == 304 else None)


async def test_100_continue_comes_from_the_backend(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert head.get("expect") == "100-continue"
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.read(5) == b"hello"
        await peer.send(ok(b"thanks"))

    async with platform.backend("plain", script), await platform.connect() as peer:
        await peer.send(platform.head("POST", "/", "Content-Length: 5", "Expect: 100-continue"))
        assert (await peer.head()).first == "HTTP/1.1 100 Continue"
        await peer.send(b"hello")
        assert (await peer.answer()).body == b"thanks"


async def test_100_continue_can_be_refused(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b"no", status="413 Content Too Large"))
        assert await peer.closed() == b""  # not one byte of the body

    async with platform.backend("plain", script) as backend, await platform.connect() as peer:
        await peer.send(platform.head("POST", "/", "Content-Length: 5", "Expect: 100-continue"))
        answer = await peer.answer()
        assert (answer.status, answer.interim) == (413, [])
        # Whether a body still follows nobody can know, so the connection ends.
        assert answer.head.get("connection") == "close"
        assert await peer.closed() == b""
        await backend.done()


async def test_100_continue_that_nobody_asked_for_stays_inside(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n" + ok())

    async with platform.backend("plain", script):
        answer = await platform.get()
    assert (answer.status, answer.interim) == (200, [])


async def test_early_hints_come_at_once_and_before_the_response(platform: Platform) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        await go.wait()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + ok())

    async with platform.backend("plain", script), await platform.connect() as peer:
        await peer.send(platform.head("GET", "/"))
        first = await peer.head()
        assert (first.status, first.get("link")) == (103, "</a.css>; rel=preload")
        go.set()
        answer = await peer.answer()
        assert [one.status for one in answer.interim] == [103, 102]
        assert answer.body == b"ok"


async def test_many_interim_responses_neither_break_nor_flood(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 3000 + ok())

    async with platform.backend("plain", script):
        answer = await platform.get()
    assert answer.body == b"ok"
    assert len(answer.interim) < 100


async def test_trailers_go_both_ways(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        head, body, trailers = await peer.request()
        assert head.get("te") == "trailers"
        assert (body, trailers) == (b"abcdef", [("x-sum", "6")])
        await peer.send(
            b"HTTP/1.1 200 OK\r\nTrailer: X-Back\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\none\r\n3\r\ntwo\r\n0\r\nX-Back: yes\r\nContent-Length: 9\r\nSet-Cookie: a=b\r\n\r\n"
        )

    async with platform.backend("plain", script) as backend, await platform.connect() as peer:
        await peer.send(platform.head("POST", "/", "Transfer-Encoding: chunked", "TE: trailers", "Trailer: X-Sum"))
        await peer.send(b"3\r\nabc\r\n3\r\ndef\r\n0\r\nX-Sum: 6\r\nPlatform-Identity: root\r\n\r\n")
        answer = await peer.answer()
        assert answer.body == b"onetwo"
        assert answer.trailers == [("x-back", "yes")]
        await backend.done()


async def test_http_1_0_ends_with_the_connection_unless_it_is_asked_to_stay(platform: Platform) -> None:
    async with platform.backend("plain", PLAIN):
        async with await platform.connect() as peer:
            await peer.send(platform.head("GET", "/a", version="1.0"))
            answer = await peer.answer()
            assert (answer.head.get("connection"), answer.body) == ("close", b"/a|")
            assert await peer.closed() == b""
        async with await platform.connect() as peer:
            for _ in range(3):
                await peer.send(platform.head("GET", "/b", "Connection: keep-alive", version="1.0"))
                answer = await peer.answer()
                assert (answer.head.get("connection"), answer.body) == ("keep-alive", b"/b|")


async def test_http_1_0_never_sees_chunks_or_interim_responses(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await peer.send(b"3\r\none\r\n3\r\ntwo\r\n0\r\nX-Late: 1\r\n\r\n")

    async with platform.backend("plain", script), await platform.connect() as peer:
        await peer.send(platform.head("GET", "/", "Connection: keep-alive", version="1.0"))
        answer = await peer.answer()
        assert answer.interim == []
        assert answer.head.get("transfer-encoding") is None
        assert (answer.head.get("connection"), answer.body) == ("close", b"onetwo")


async def test_a_body_until_close_becomes_chunks(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil ")
        await peer.send(b"the end")

    async with platform.backend("plain", script), await platform.connect() as peer:
        for _ in range(2):
            await peer.send(platform.head("GET", "/"))
            answer = await peer.answer()
            assert answer.head.get("transfer-encoding") == "chunked"
            assert answer.body == b"until the end"


async def test_chunks_arrive_one_by_one_as_they_are_sent(platform: Platform) -> None:
    turn = asyncio.Semaphore(0)

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for n in range(5):
            await turn.acquire()
            await peer.send(b"9\r\ndata: %d\n\n\r\n" % n)
        await peer.send(b"0\r\n\r\n")

    async with platform.backend("plain", script), await platform.connect("public") as peer:
        await peer.send(platform.head("GET", "/events"))
        head = await peer.head()
        assert head.get("content-type") == "text/event-stream"
        for n in range(5):
            turn.release()
            assert await peer.read(14) == b"9\r\ndata: %d\n\n\r\n" % n
        assert await peer.read(5) == b"0\r\n\r\n"


async def test_an_exchange_may_go_both_ways_at_once(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while (line := await peer.read(6)) != b"0\r\n\r\n"[:6] and not line.startswith(b"0"):
            await peer.send(line)
        await peer.send(b"0\r\n\r\n")

    async with platform.backend("plain", script), await platform.connect() as peer:
        await peer.send(platform.head("POST", "/", "Transfer-Encoding: chunked"))
        assert (await peer.head()).status == 200
        for letter in (b"a", b"b", b"c"):
            await peer.send(b"1\r\n%b\r\n" % letter)
            assert await peer.read(6) == b"1\r\n%b\r\n" % letter
        await peer.send(b"0\r\nX: y\r\n\r\n")
        assert await peer.read(5) == b"0\r\n\r\n"


async def test_a_client_that_leaves_is_seen_by_the_backend(platform: Platform) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        began.set()
        assert await peer.closed() == b""
        ended.set()

    async with platform.backend("plain", script):
        for leave in ("close", "reset", "half-close"):
            began.clear()
            ended.clear()
            async with await platform.connect() as peer:
                await peer.send(platform.head("GET", "/"))
                await began.wait()
                if leave == "reset":
                    peer.cut()
                elif leave == "close":
                    peer.writer.close()
                else:
                    peer.half_close()
                async with asyncio.timeout(2):
                    await ended.wait()


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_seen_by_the_backend(platform: Platform) -> None:
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        assert await peer.closed() == b"half"
        ended.set()

    async with platform.backend("plain", script):
        async with await platform.connect() as peer:
            await peer.send(platform.head("POST", "/", "Content-Length: 8") + b"half")
            await asyncio.sleep(0.1)
        async with asyncio.timeout(2):
            await ended.wait()


async def test_a_kept_backend_connection_that_died_costs_no_idempotent_request(platform: Platform) -> None:
    async def one_answer(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"first"))
        await peer.request()  # and hangs up on the second

    async with platform.backend("plain", one_answer, serving(ok(b"second"))) as backend:
        assert (await platform.get()).body == b"first"
        assert (await platform.get()).body == b"second"
        assert backend.connections == 2


async def test_a_post_is_never_sent_twice(platform: Platform) -> None:
    async def one_answer(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"first"))
        await peer.request()

    async with platform.backend("plain", one_answer, serving(ok(b"second"))) as backend:
        assert (await platform.get()).body == b"first"
        answer = await platform.ask(platform.head("POST", "/", "Content-Length: 0"))
        assert answer.status == 502
        assert backend.connections == 1


async def test_a_backend_that_wants_to_close_is_left_alone(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"bye", "Connection: close"))
        assert await peer.closed() == b""

    async with platform.backend("plain", script) as backend:
        for _ in range(3):
            answer = await platform.get()
            assert (answer.body, answer.head.get("connection")) == (b"bye", None)
        assert backend.connections == 3


async def test_a_service_below_a_base_path_gets_it(platform: Platform) -> None:
    seen: list[Head] = []

    async def script(peer: Peer) -> None:
        seen.append((await peer.request())[0])
        await peer.send(ok())

    async with platform.backend("based", script):
        await platform.get("/x?y=%2F", service="based")
    assert seen[0].first == "GET /base/x?y=%2F HTTP/1.1"
    assert seen[0].get("x-forwarded-prefix") == "/s/sat-1/based"
    assert seen[0].get("host") == f"127.0.0.1:{platform.services.ports['based']}"
