from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import websockets

from platformctl.verify.sample_http import pattern
from platformctl.verify.samples import NAMES, SampleServices

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def services() -> AsyncIterator[SampleServices]:
    samples = SampleServices()
    await samples.start()
    yield samples
    await samples.stop()


@pytest.fixture
async def http(services: SampleServices) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=services.url("http"), trust_env=False) as client:
        yield client


async def test_the_api_describes_itself_and_is_healthy(http: httpx.AsyncClient) -> None:
    assert "GET /headers" in (await http.get("/")).json()["endpoints"]
    assert (await http.get("/healthz")).text == "ok\n"
    missing = await http.get("/nothing")
    assert (missing.status_code, "endpoints" in missing.json()) == (404, True)


async def test_headers_come_back_as_they_were_sent(http: httpx.AsyncClient) -> None:
    got = (await http.get("/headers", headers=[("X-One", "1"), ("X-One", "2")])).json()["headers"]
    assert [value for name, value in got if name == "X-One"] == ["1", "2"]


async def test_echo_returns_the_body_and_its_type(http: httpx.AsyncClient) -> None:
    answer = await http.post("/echo", content=b"\x00\xff", headers={"content-type": "application/x-thing"})
    assert (answer.content, answer.headers["content-type"]) == (b"\x00\xff", "application/x-thing")


async def test_a_chunked_upload_is_measured_and_hashed(http: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"a" * 1000

    answer = (await http.post("/sha256", content=chunks())).json()
    assert answer == {"sha256": hashlib.sha256(b"a" * 100_000).hexdigest(), "bytes": 100_000}


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 1 << 20])
async def test_bytes_are_the_pattern(http: httpx.AsyncClient, size: int) -> None:
    assert (await http.get(f"/bytes/{size}")).content == pattern(size)


def test_no_two_blocks_of_the_pattern_are_alike() -> None:
    data = pattern(64 * 16384)
    assert len({data[at : at + 16384] for at in range(0, len(data), 16384)}) == 64


@pytest.mark.parametrize("status", [200, 204, 304, 404, 503])
async def test_a_status_is_as_asked_and_the_connection_stays(http: httpx.AsyncClient, status: int) -> None:
    assert (await http.get(f"/status/{status}")).status_code == status
    assert (await http.get("/healthz")).status_code == 200


async def test_events_are_numbered_and_end(services: SampleServices, http: httpx.AsyncClient) -> None:
    answer = await http.get(services.url("events") + "/events?count=3&interval=0")
    assert answer.headers["content-type"] == "text/event-stream"
    assert [line for line in answer.text.splitlines() if line.startswith("id:")] == ["id: 0", "id: 1", "id: 2"]
    assert (await http.get("/events?count=many")).status_code == 400


async def test_an_acknowledged_stream_sends_its_next_event_only_then(http: httpx.AsyncClient) -> None:
    async with http.stream("GET", "/events?count=2&ack=k") as response:
        lines = response.aiter_lines()
        first = [await anext(lines) for _ in range(4)]
        assert first[0] == "id: 0"
        assert (await http.post("/events/k/ack")).status_code == 200
        assert await anext(lines) == "id: 1"
    assert (await http.post("/events/k/ack")).status_code == 404


async def test_a_rendezvous_answers_when_everybody_is_there(services: SampleServices, http: httpx.AsyncClient) -> None:
    first = asyncio.create_task(http.post("/rendezvous/k/2", content=b"one"))
    while services.app.arrived("k") != 1:  # noqa: ASYNC110 (the service knows no event that a test could await)
        await asyncio.sleep(0)
    assert not first.done()
    second = await http.post("/rendezvous/k/2", content=b"two")
    assert ((await first).content, second.content) == (b"one", b"two")
    assert services.app.arrived("k") is None


async def test_the_client_is_told_to_go_on_when_it_waits_for_it(services: SampleServices) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", services.ports["http"])
    writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(b"hi")
    assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_websocket_messages_come_back_fragments_included(services: SampleServices) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{services.ports['websocket']}/", proxy=None) as socket_:
        await socket_.send("text")
        assert await socket_.recv() == "text"
        await socket_.send([b"one ", b"two ", b"three"])
        assert await socket_.recv() == b"one two three"
        await socket_.send(bytes(200_000))
        assert await socket_.recv() == bytes(200_000)


async def test_a_plain_request_to_the_websocket_service_is_told_what_it_is(services: SampleServices) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(services.url("websocket"))
    assert (answer.status_code, "ws://" in answer.text) == (200, True)


async def test_tcp_comes_back_even_after_half_a_close(services: SampleServices) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", services.ports["tcp"])
    writer.write(b"no newline")
    writer.write_eof()
    assert await reader.read() == b"no newline"
    writer.close()


async def test_a_taken_port_leaves_nothing_open() -> None:
    host = "127.0.0.77"  # loopback too, and nobody else's: the port before the taken one is free
    with socket.socket() as taken:
        taken.bind((host, 0))
        taken.listen()
        before = taken.getsockname()[1] - 1
        with pytest.raises(OSError, match="in use"):
            await SampleServices(host).start(before)
        with socket.socket() as again:
            again.bind((host, before))


async def test_the_module_prints_its_ports_and_ends_on_sigterm() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "platformctl.verify.samples", stdout=asyncio.subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    ports = json.loads(await process.stdout.readline())
    assert tuple(ports) == NAMES
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://127.0.0.1:{ports['http']}/healthz")).text == "ok\n"
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
