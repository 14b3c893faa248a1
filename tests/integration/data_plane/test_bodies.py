"""Bodies from nothing to 300 MB, both ways, slow at either end; what waits is bounded."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tests.integration.data_plane.conftest import Platform
from tests.integration.data_plane.peers import Peer, ended, ok, serving

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
BLOCK = hashlib.sha512(b"seed").digest() * 1024 * 4  # 256 KiB
SIZES = [0, 1, 4095, 4096, 4097, 32768, 65537, 300_000, 5 * MIB + 1]


def blocks(size: int) -> list[bytes]:
    whole, rest = divmod(size, len(BLOCK))
    return [BLOCK] * whole + ([BLOCK[:rest]] if rest else [])


def digest(size: int) -> str:
    found = hashlib.sha256()
    for block in blocks(size):
        found.update(block)
    return found.hexdigest()


async def summed(peer: Peer, size: int) -> str:
    """The checksum of the next `size` bytes."""
    found = hashlib.sha256()
    while size:
        data = await peer.some(min(size, 1 << 18))
        assert data, f"ended {size} bytes early"
        found.update(data)
        size -= len(data)
    return found.hexdigest()


async def download(peer: Peer) -> None:
    """A backend: GET /SIZE gives so many bytes, chunked when the query says so."""
    while True:
        head, _, _ = await peer.request()
        path, _, how = head.first.split()[1].partition("?")
        size = int(path[1:])
        if how == "chunked":
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for block in blocks(size):
                await peer.send(b"%x\r\n%b\r\n" % (len(block), block))
            await peer.send(b"0\r\n\r\n")
        else:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for block in blocks(size):
                await peer.send(block)


async def upload(peer: Peer) -> None:
    """A backend: answers with the checksum of the body."""
    while True:
        head = await peer.head()
        length = head.get("content-length")
        if length is not None:
            got = await summed(peer, int(length))
        else:
            body, _ = await peer.body(head, request=True)
            got = hashlib.sha256(body).hexdigest()
        await peer.send(ok(got.encode()))


@pytest.mark.parametrize("kind", ["http", "public"])
async def test_bodies_of_any_size_arrive_as_they_were(platform: Platform, kind: str) -> None:
    async with platform.backend("plain", download), await platform.connect(kind) as peer:
        for size in SIZES:
            for how in ("", "?chunked"):
                await peer.send(platform.head("GET", f"/{size}{how}"))
                answer = await peer.answer()
                assert len(answer.body) == size
                assert hashlib.sha256(answer.body).hexdigest() == digest(size)
    async with platform.backend("plain", upload), await platform.connect(kind) as peer:
        for size in SIZES:
            await peer.send(platform.head("PUT", "/", f"Content-Length: {size}"))
            for block in blocks(size):
                await peer.send(block)
            assert (await peer.answer()).body.decode() == digest(size)
            await peer.send(platform.head("PUT", "/", "Transfer-Encoding: chunked"))
            for block in blocks(size):
                await peer.send(b"%x\r\n%b\r\n" % (len(block), block))
            await peer.send(b"0\r\n\r\n")
            assert (await peer.answer()).body.decode() == digest(size)


@pytest.mark.slow
async def test_three_hundred_megabytes_go_both_ways_in_little_memory(platform: Platform) -> None:
    size = 300 * MIB
    before = platform.rss()
    peaks = dict(before)

    async def watch() -> None:
        while True:
            for name, now in platform.rss().items():
                peaks[name] = max(peaks[name], now)
            await asyncio.sleep(0.1)

    watcher = asyncio.create_task(watch())
    async with platform.backend("plain", download), await platform.connect() as peer:
        await peer.send(platform.head("GET", f"/{size}"))
        assert (await peer.head()).status == 200
        assert await summed(peer, size) == digest(size)
    async with platform.backend("plain", upload), await platform.connect() as peer:
        await peer.send(platform.head("PUT", "/", f"Content-Length: {size}"))
        for block in blocks(size):
            await peer.send(block)
        assert (await peer.answer()).body.decode() == digest(size)
    watcher.cancel()
    grown = {name: (peaks[name] - before[name]) // MIB for name in peaks}
    assert max(grown.values()) < 64, grown


async def endless(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (10**10))
    with suppress(ConnectionError):
        while True:
            peer.writer.write(BLOCK)
            await peer.writer.drain()


async def steadily(platform: Platform, count: int) -> AsyncIterator[float]:
    async with await platform.connect() as peer:
        for _ in range(count):
            began = time.monotonic()
            await peer.send(platform.head("GET", "/", service="other"))
            assert (await peer.answer()).status == 200
            yield time.monotonic() - began


async def test_readers_that_stand_still_cost_bounded_memory_and_hold_nobody_up(platform: Platform) -> None:
    before = platform.rss()
    async with platform.backend("plain", endless), platform.backend("other", serving()):
        stalled = []
        for _ in range(10):
            peer = await platform.connect()
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await peer.send(platform.head("GET", "/"))
            stalled.append(peer)
        await asyncio.sleep(1)
        times = sorted([took async for took in steadily(platform, 200)])
        grown = {name: (now - before[name]) // MIB for name, now in platform.rss().items()}
        for peer in stalled:
            peer.cut()
            await ended(peer.writer)
    assert max(grown.values()) < 64, grown
    assert times[-3] < 0.25


async def test_a_backend_that_does_not_read_costs_bounded_memory_and_stops_the_client(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(30)

    before = platform.rss()
    async with platform.backend("plain", script), platform.backend("other", serving()):
        senders = []
        for _ in range(4):
            peer = await platform.connect()
            await peer.send(platform.head("PUT", "/", f"Content-Length: {10**10}"))
            senders.append(peer)
        sent = [0] * len(senders)

        async def push(n: int) -> None:
            while True:
                senders[n].writer.write(BLOCK)
                await senders[n].writer.drain()
                sent[n] += len(BLOCK)

        tasks = [asyncio.create_task(push(n)) for n in range(len(senders))]
        await asyncio.sleep(1)
        at = list(sent)
        times = sorted([took async for took in steadily(platform, 100)])
        await asyncio.sleep(0.3)
        assert sent == at, "the clients could go on"
        grown = {name: (now - before[name]) // MIB for name, now in platform.rss().items()}
        for task in tasks:
            task.cancel()
        for peer in senders:
            peer.cut()
            await ended(peer.writer)
    assert max(at) < 64 * MIB
    assert max(grown.values()) < 64, grown
    assert times[-3] < 0.25


async def test_a_slow_reader_gets_everything(platform: Platform) -> None:
    size = 3 * MIB
    async with platform.backend("plain", download), await platform.connect() as peer:
        await peer.send(platform.head("GET", f"/{size}?chunked"))
        assert (await peer.head()).status == 200
        await asyncio.sleep(0.5)  # the whole of it would be there by now
        pieces, _ = await peer.chunks()
        assert hashlib.sha256(b"".join(pieces)).hexdigest() == digest(size)
        # The connection goes on as if nothing had been.
        await peer.send(platform.head("GET", "/10"))
        assert (await peer.answer()).body == BLOCK[:10]


async def test_a_slow_backend_gets_everything(platform: Platform) -> None:
    size = 3 * MIB

    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert head.get("content-length") == str(size)
        await asyncio.sleep(0.5)
        await peer.send(ok((await summed(peer, size)).encode()))

    async with platform.backend("plain", script), await platform.connect() as peer:
        await peer.send(platform.head("PUT", "/", f"Content-Length: {size}"))
        for block in blocks(size):
            await peer.send(block)
        assert (await peer.answer()).body.decode() == digest(size)


async def test_the_end_of_a_response_reaches_a_client_that_reads_late(platform: Platform) -> None:
    """The backend is done and gone long before: what waits for the client must not go with it."""
    size = 2 * MIB

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for block in blocks(size):
            await peer.send(block)

    for kind in ("http", "public"):
        async with platform.backend("plain", script) as backend:
            async with await platform.connect(kind) as peer:
                peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
                await peer.send(platform.head("GET", "/", version="1.0"))
                await asyncio.sleep(0.4)
                peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
                answer = await peer.answer()
                assert len(answer.body) == size
                assert hashlib.sha256(answer.body).hexdigest() == digest(size)
            await backend.done()


@pytest.mark.parametrize("kind", ["http", "public"])
async def test_an_early_response_reaches_a_client_that_still_sends(platform: Platform, kind: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b"enough", status="413 Content Too Large"))
        await peer.closed()

    async with platform.backend("plain", script), await platform.connect(kind) as peer:
        await peer.send(platform.head("PUT", "/", f"Content-Length: {10**9}"))

        async def push() -> None:
            while True:
                peer.writer.write(BLOCK)
                await peer.writer.drain()

        sender = asyncio.create_task(push())
        answer = await peer.answer()
        assert (answer.status, answer.body) == (413, b"enough")
        assert answer.head.get("connection") == "close"
        sender.cancel()


@pytest.mark.parametrize("kind", ["http", "public"])
async def test_a_refusal_reaches_a_client_that_still_sends(platform: Platform, kind: str) -> None:
    request = b"PUT /s/sat-1/plain/ HTTP/1.1\r\nHost: hub.test\r\nContent-Length: 8000000\r\n\r\n"
    async with await platform.connect(kind) as peer:
        await peer.send(request)
        for block in blocks(4 * MIB):
            peer.writer.write(block)
        answer = await peer.answer()
        assert (answer.status, answer.head.get("connection")) == (401, "close")


async def test_a_small_body_that_was_refused_costs_no_connection(platform: Platform) -> None:
    request = b"PUT /s/sat-1/plain/ HTTP/1.1\r\nHost: hub.test\r\nContent-Length: 100000\r\n\r\n"
    async with platform.backend("plain", serving()), await platform.connect() as peer:
        for _ in range(3):
            await peer.send(request + b"x" * 100_000)
            answer = await peer.answer()
            assert (answer.status, answer.head.get("connection")) == (401, None)
        await peer.send(platform.head("GET", "/"))
        assert (await peer.answer()).status == 200


async def test_a_client_that_sends_without_reading_is_held_up(platform: Platform) -> None:
    """Requests that the hub answers by itself: what waits for the client must not grow for ever."""
    before = platform.rss()
    request = b"GET /s/sat-1/plain/ HTTP/1.1\r\nHost: hub.test\r\n\r\n" * 5000
    async with await platform.connect() as peer:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent = 0
        try:
            async with asyncio.timeout(3):
                while sent < 100 * MIB:
                    peer.writer.write(request)
                    await peer.writer.drain()
                    sent += len(request)
        except TimeoutError:
            pass
        assert sent < 50 * MIB
        grown = {name: (now - before[name]) // MIB for name, now in platform.rss().items()}
        peer.cut()
    assert max(grown.values()) < 16, grown


async def test_a_client_that_never_reads_the_end_does_not_stay_for_ever(platform: Platform) -> None:
    size = 6 * MIB
    async with platform.backend("plain", download), await platform.connect() as peer:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await peer.send(platform.head("GET", f"/{size}", "Connection: close"))
        await asyncio.sleep(0.2)
        assert platform.busy()
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len((await peer.answer()).body) == size
