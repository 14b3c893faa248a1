"""Timeouts, connection limits, and the gate of a service: the exact problem, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import socket
import time

import pytest

from platformctl.net.problem_table import PROBLEMS
from tests.integration.data_plane.conftest import Platform
from tests.integration.data_plane.peers import Answer, Peer, ok, serving, until

pytestmark = pytest.mark.integration


def problem(answer: Answer, code: str) -> dict[str, object]:
    """The problem document of an answer that must have this code, and the status that the table gives it."""
    found: dict[str, object] = json.loads(answer.body)
    assert (answer.status, found["code"]) == (PROBLEMS[code].status, code), found
    assert answer.head.get("content-type") == "application/problem+json"
    assert found["status"] == answer.status
    assert found["request_id"] == answer.head.get("x-request-id")
    assert found["hint"]
    return found


async def test_a_backend_that_does_not_answer_is_a_504(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        assert await peer.closed() == b""

    async with platform.backend("slow", script) as backend, await platform.connect() as peer:
        began = time.monotonic()
        await peer.send(platform.head("GET", "/", service="slow"))
        problem(await peer.answer(), "backend-timeout")
        assert 0.9 < time.monotonic() - began < 2
        await backend.done()


async def test_the_response_has_its_time_from_the_end_of_the_request_on(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        _, body, _ = await peer.request()
        assert body == b"abcd"
        await asyncio.sleep(0.7)
        await peer.send(ok())

    async with platform.backend("slow", script), await platform.connect() as peer:
        await peer.send(platform.head("POST", "/", "Content-Length: 4", service="slow"))
        for byte in (b"a", b"b", b"c", b"d"):
            await asyncio.sleep(0.4)  # together longer than the response may take
            await peer.send(byte)
        assert (await peer.answer()).status == 200


async def test_a_request_body_that_stops_is_given_up(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        assert await peer.closed() == b"ab"

    async with platform.backend("slow", script) as backend, await platform.connect() as peer:
        await peer.send(platform.head("POST", "/", "Content-Length: 4", service="slow") + b"ab")
        problem(await peer.answer(), "backend-timeout")
        assert await peer.closed() == b""
        await backend.done()


async def test_a_response_that_falls_silent_is_cut(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert await peer.closed() == b""

    async with platform.backend("slow", script) as backend, await platform.connect() as peer:
        await peer.send(platform.head("GET", "/", service="slow"))
        assert (await peer.head()).status == 200
        assert await peer.read(8) == b"3\r\none\r\n"
        assert await peer.closed() == b""
        await backend.done()


async def test_a_response_that_trickles_is_not_cut(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        for _ in range(5):
            await asyncio.sleep(0.6)
            await peer.send(b"x")

    async with platform.backend("slow", script):
        assert (await platform.get(service="slow")).body == b"xxxxx"


async def test_a_backend_that_is_not_there_is_a_502_at_once(platform: Platform) -> None:
    began = time.monotonic()
    problem(await platform.get(), "backend-unreachable")
    assert time.monotonic() - began < 1


async def test_a_backend_that_does_not_accept_is_a_504(platform: Platform) -> None:
    with socket.socket() as full:
        full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        full.bind(("127.0.0.1", platform.services.ports["slow"]))
        full.listen(0)
        fillers = []
        for _ in range(3):  # the queue of the kernel takes one or two, and drops what else knocks
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(full.getsockname())
            fillers.append(one)
        await asyncio.sleep(0.05)
        try:
            began = time.monotonic()
            problem(await platform.get(service="slow"), "backend-connect-timeout")
            assert 0.9 < time.monotonic() - began < 2.5
        finally:
            for one in fillers:
                one.close()


async def test_an_idle_client_connection_is_closed(platform: Platform) -> None:
    async with platform.backend("plain", serving()), await platform.connect() as peer:
        await peer.send(platform.head("GET", "/"))
        await peer.answer()
        began = time.monotonic()
        assert await peer.closed() == b""
        assert 3.5 < time.monotonic() - began < 5.5


async def test_a_service_at_its_limit_queues_then_refuses(platform: Platform) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await go.wait()
            await peer.send(ok())

    async with platform.backend("narrow", script):
        first, second = await platform.connect(), await platform.connect()
        async with first, second:
            await first.send(platform.head("GET", "/1", service="narrow"))
            await until_busy(platform, "requests_in_flight", 1)
            await second.send(platform.head("POST", "/2", "Content-Length: 3", service="narrow") + b"abc")
            await until_busy(platform, "requests_waiting", 1)
            answer = await platform.get("/3", service="narrow")
            problem(answer, "overloaded")
            assert int(answer.head.get("retry-after") or 0) >= 1
            go.set()
            assert (await first.answer()).status == 200
            assert (await second.answer()).status == 200


async def until_busy(platform: Platform, name: str, value: int) -> None:
    def now() -> float:
        return sum(v for k, v in platform.busy().items() if k.startswith(f"platformctl_{name}"))

    await until(lambda: now() == value)


async def test_waiting_for_a_service_has_an_end(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(3)
        await peer.send(ok())

    async with platform.backend("narrow", script), await platform.connect() as first:
        await first.send(platform.head("GET", "/1", service="narrow"))
        await until_busy(platform, "requests_in_flight", 1)
        began = time.monotonic()
        problem(await platform.get("/2", service="narrow"), "overloaded")
        assert 0.9 < time.monotonic() - began < 2.9
        assert (await first.answer()).status == 200


async def test_who_stops_waiting_leaves_the_queue(platform: Platform) -> None:
    go = asyncio.Event()
    paths: list[str] = []

    async def script(peer: Peer) -> None:
        while True:
            head, _, _ = await peer.request()
            paths.append(head.first.split()[1])
            await go.wait()
            await peer.send(ok())

    async with platform.backend("narrow", script), await platform.connect() as first:
        await first.send(platform.head("GET", "/1", service="narrow"))
        await until_busy(platform, "requests_in_flight", 1)
        async with await platform.connect() as second:
            await second.send(platform.head("GET", "/2", service="narrow"))
            await until_busy(platform, "requests_waiting", 1)
        await until_busy(platform, "requests_waiting", 0)
        third = asyncio.create_task(platform.get("/3", service="narrow"))
        await until_busy(platform, "requests_waiting", 1)
        go.set()
        assert (await first.answer()).status == 200
        assert (await third).status == 200
    assert paths == ["/1", "/3"]


async def test_a_long_queue_that_fails_together_is_answered_one_by_one(platform: Platform) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        began.set()
        await go.wait()

    count = 300
    async with platform.backend("deep", script) as backend:
        tasks = [asyncio.create_task(platform.get(service="deep"))]
        await began.wait()
        tasks += [asyncio.create_task(platform.get(service="deep")) for _ in range(count)]
        await until_busy(platform, "requests_waiting", count)
        assert backend._server is not None
        backend._server.close()  # whoever comes next is refused
        go.set()
        answers = await asyncio.gather(*tasks)
    assert {answer.status for answer in answers} == {502}


async def test_connections_to_a_backend_are_bounded_and_waiting_for_one_too(platform: Platform) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await go.wait()
            await peer.send(ok())

    async with platform.backend("single", script) as backend:
        tasks = [asyncio.create_task(platform.get(service="single")) for _ in range(4)]
        await until_busy(platform, "requests_in_flight", 4)
        await asyncio.sleep(0.3)
        go.set()
        assert [answer.status for answer in await asyncio.gather(*tasks)] == [200] * 4
        assert backend.connections == 1
        go.clear()
        tasks = [asyncio.create_task(platform.get(service="single")) for _ in range(3)]
        done, pending = await asyncio.wait(tasks, timeout=2.5)
        assert len(done) == 2
        for one in done:
            problem(one.result(), "overloaded")
        go.set()
        assert (await pending.pop()).status == 200


async def test_who_waits_for_a_connection_gets_one_after_a_failed_dial(platform: Platform) -> None:
    # Nobody listens: the first dial fails, and the call that waited behind it must not be forgotten.
    answers = await asyncio.gather(*(platform.get(service="single") for _ in range(3)))
    for answer in answers:
        problem(answer, "backend-unreachable")
    async with platform.backend("single", serving()):
        assert (await platform.get(service="single")).status == 200
