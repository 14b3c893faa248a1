"""Agents that lie, on a real tunnel listener with a good certificate: what happens to them, to their callers, and that
nothing happens to anybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from platformctl.hub.store_sqlite import SQLiteStore
from platformctl.wire import frames

from .conftest import Platform
from .hostile import SERVICE, Hostile, enrol, other_ca, tls, tunnel
from .load import Load

EVIL = "evil"


@pytest.fixture
def identity(platform: Platform, tmp_path: Path) -> Path:
    return enrol(platform.state / "hub", EVIL, tmp_path / EVIL)


@pytest.fixture
def tunnel_url(platform: Platform) -> str:
    return str(platform.env["replicas"][0]["tunnel_url"])


@pytest.fixture
async def evil(tunnel_url: str, identity: Path) -> AsyncIterator[Hostile]:
    async with tunnel(tunnel_url, identity, EVIL) as made:
        yield made


@pytest.fixture(autouse=True)
async def others(platform: Platform) -> AsyncIterator[Load]:
    """A good satellite's callers at the same replica: not one of their requests may notice anything."""
    load = Load(platform.url(0), platform.token, per_second=100, connections=4)
    async with load.running():
        yield load
    assert load.outcomes
    assert not load.failed(), load.summary()
    assert max(one.seconds for one in load.outcomes) < 2.0


async def call(platform: Platform, path: str = "/", method: str = "GET", **more: Any) -> httpx.Response:
    """A request to the hostile satellite."""
    headers = {"Authorization": f"Bearer {platform.token}"}
    async with httpx.AsyncClient(timeout=20, trust_env=False) as client:
        return await client.request(method, platform.url(0, EVIL, path), headers=headers, **more)


def head(stream: int, status: int, length: int, block: bytes = b"", flags: int = 0) -> bytes:
    return frames.frame(frames.HEAD, flags, stream, frames.head_payload(status, length, block))


def data(stream: int, content: bytes, flags: int = 0) -> bytes:
    return frames.frame(frames.DATA, flags, stream, content)


# ---- who may open a tunnel -------------------------------------------------------------------------------------


async def test_no_client_certificate_is_told_unauthorized(tunnel_url: str, identity: Path) -> None:
    async with tunnel(tunnel_url, identity, EVIL, certificate=False) as evil:
        code, reason = await evil.goodbye()
    assert code == frames.UNAUTHORIZED
    assert "client certificate" in reason


async def test_a_certificate_of_another_ca_ends_in_the_tls_handshake(
    platform: Platform, tunnel_url: str, tmp_path: Path
) -> None:
    stranger = enrol(platform.state / "hub", EVIL, tmp_path / "stranger", ca=other_ca(platform.env["domain"]))
    with pytest.raises((OSError, InvalidHandshake)):
        await tunnel(tunnel_url, stranger, EVIL).__aenter__()


async def test_a_revoked_certificate_is_told_unauthorized_and_its_open_tunnels_end_on_all_replicas(
    platform: Platform, tmp_path: Path
) -> None:
    doomed = enrol(platform.state / "hub", "doomed", tmp_path / "doomed")
    urls = [replica["tunnel_url"] for replica in platform.env["replicas"]]
    async with contextlib.AsyncExitStack() as stack:
        tunnels = [await stack.enter_async_context(tunnel(url, doomed, "doomed")) for url in urls]
        for each in tunnels:
            await each.serve()
        with SQLiteStore(platform.state / "hub" / "hub.db") as store:
            assert store.revoke_satellite("doomed")
        for code, reason in await asyncio.gather(*(each.goodbye(1.5) for each in tunnels)):
            assert code == frames.UNAUTHORIZED
            assert "revoked" in reason
    for url in urls:
        async with tunnel(url, doomed, "doomed") as again:
            assert (await again.goodbye())[0] == frames.UNAUTHORIZED


async def test_a_satellite_that_was_deleted_is_told_unauthorized(
    platform: Platform, tunnel_url: str, tmp_path: Path
) -> None:
    gone = enrol(platform.state / "hub", "gone", tmp_path / "gone")
    with SQLiteStore(platform.state / "hub" / "hub.db") as store:
        assert store.delete_satellite("gone")
    async with tunnel(tunnel_url, gone, "gone") as evil:
        assert (await evil.goodbye())[0] == frames.UNAUTHORIZED


async def test_another_subprotocol_is_refused(tunnel_url: str, identity: Path) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with tunnel(tunnel_url, identity, EVIL, subprotocol="platformctl.tunnel.v0"):
            pass
    assert refused.value.response.status_code == 400


@pytest.mark.parametrize("path", ["/", "/tunnels", "/api/v1/satellites", "/metrics"])
async def test_the_tunnel_port_serves_nothing_else(tunnel_url: str, identity: Path, path: str) -> None:
    async with httpx.AsyncClient(verify=tls(identity), trust_env=False) as client:
        assert (await client.get(tunnel_url.replace("wss", "https") + path)).status_code == 404


# ---- greeting and registration -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"satellite": "sat-1"}, frames.UNAUTHORIZED),
        ({"versions": [7]}, frames.VERSION),
        ({"versions": "1"}, frames.VERSION),
        ({"instance": ""}, frames.PROTOCOL),
        ({"instance": "x" * 65}, frames.PROTOCOL),
        ({"instance": 5}, frames.PROTOCOL),
        ({"lane": 99}, frames.PROTOCOL),
        ({"lane": -1}, frames.PROTOCOL),
        ({"lane": True}, frames.PROTOCOL),
        ({"lanes": 1000}, frames.PROTOCOL),
    ],
    ids=str,
)
async def test_a_wrong_greeting_is_answered_with_its_code(evil: Hostile, changes: dict[str, Any], code: int) -> None:
    await evil.hello(**changes)
    assert (await evil.goodbye())[0] == code


@pytest.mark.parametrize(
    "first",
    [
        frames.control(frames.REGISTER, {"services": [SERVICE]}),
        frames.frame(frames.PING, 0, 0, bytes(8)),
        frames.frame(frames.WINDOW, 0, 0, b"\0\0\1\0"),
        frames.control(frames.WELCOME, {}),
        frames.frame(frames.OPEN, 0, 1, b""),
        head(1, 200, 0),
        b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n",
        b"\0",
        b"\xff" * 10,
        frames.frame(frames.HELLO, 0, 0, b"{"),
        frames.frame(frames.HELLO, 0, 0, b"[]"),
        frames.frame(frames.HELLO, 0, 0, b"[" * 60000),
        frames.frame(frames.HELLO, 0, 1, b"{}"),
    ],
    ids=lambda first: repr(first[:12]),
)
async def test_what_is_not_a_greeting_is_a_protocol_error(evil: Hostile, first: bytes) -> None:
    await evil.send(first)
    assert (await evil.goodbye())[0] == frames.PROTOCOL


async def test_a_text_message_is_a_protocol_error(evil: Hostile) -> None:
    await evil.socket.send("hello")
    assert (await evil.goodbye())[0] == frames.PROTOCOL


async def test_a_message_beyond_the_limit_is_a_protocol_error(evil: Hostile) -> None:
    await evil.send(bytes(frames.MAX_MESSAGE + 1))
    assert (await evil.goodbye())[0] == frames.PROTOCOL


async def test_a_message_beyond_any_buffer_ends_the_connection(evil: Hostile) -> None:
    with contextlib.suppress(ConnectionClosed):
        await evil.send(bytes(4 * frames.MAX_MESSAGE))
    assert await ended(evil, 2)


@pytest.mark.parametrize(
    "services",
    [None, 5, {"name": "web"}, [5], [{"kind": "http"}]],
    ids=repr,
)
async def test_a_malformed_registration_never_registers(evil: Hostile, platform: Platform, services: Any) -> None:
    await evil.hello()
    await evil.expect(frames.WELCOME)
    await evil.send(frames.control(frames.REGISTER, {"services": services}))
    with contextlib.suppress(ConnectionClosed):
        answer = await evil.expect(frames.REGISTERED, 2)
        assert answer.message["accepted"] == []
        assert answer.message["refused"]
    assert (await call(platform)).status_code in (404, 503)


async def test_registering_thousands_of_services_stops_at_the_limit(evil: Hostile) -> None:
    await evil.serve()
    accepted = 0
    refused = 0
    for batch in range(15):
        specs = [{"name": f"s{batch}-{number}", "kind": "http"} for number in range(100)]
        await evil.send(frames.control(frames.REGISTER, {"services": specs}))
        answer = (await evil.expect(frames.REGISTERED)).message
        accepted += len(answer["accepted"])
        refused += len(answer["refused"])
    assert accepted == 999
    assert refused == 501


# ---- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (data(77, b"x"), frames.PROTOCOL),
        (head(77, 200, 0, flags=frames.FLAG_END), frames.PROTOCOL),
        (frames.frame(frames.END, 0, 77), frames.PROTOCOL),
        (frames.frame(frames.RESET, 0, 77, bytes(4)), frames.PROTOCOL),
        (frames.frame(frames.WINDOW, 0, 77, b"\0\0\0\1"), frames.PROTOCOL),
        (data(0, b"x"), frames.PROTOCOL),
        (frames.frame(frames.WINDOW, 0, 0, bytes(4)), frames.FLOW_CONTROL),
        (frames.frame(frames.WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 2, frames.FLOW_CONTROL),
        (frames.frame(frames.OPEN, 0, 1, frames.open_prefix(frames.KIND_TCP, b"web", 0)), frames.PROTOCOL),
        (frames.control(frames.HELLO, {"versions": [1]}), frames.PROTOCOL),
        (frames.control(frames.REPLICAS, {"replicas": []}), frames.PROTOCOL),
        (frames.frame(99, 0, 0), frames.PROTOCOL),
        (frames.frame(frames.PING, 0, 0, b"short"), frames.PROTOCOL),
        (frames.HEADER.pack(2**32 - 1, frames.DATA, 0, 1), frames.PROTOCOL),
    ],
    ids=lambda value: repr(value[:10]) if isinstance(value, bytes) else str(value),
)
async def test_a_frame_out_of_place_ends_the_tunnel_with_its_code(evil: Hostile, frame: bytes, code: int) -> None:
    await evil.serve()
    await evil.send(frame)
    assert (await evil.goodbye())[0] == code


async def answered(platform: Platform, evil: Hostile, *answer: Callable[[int], bytes], path: str = "/") -> Any:
    """What a caller gets when the satellite answers its request with these frames: a response, or an exception."""
    request = asyncio.get_running_loop().create_task(call(platform, path))
    opened = await evil.expect(frames.OPEN)
    for make in answer:
        await evil.send(make(opened.stream))
    return await asyncio.wait_for(asyncio.gather(request, return_exceptions=True), 10)


def problem(outcome: list[Any]) -> tuple[int, str]:
    response = outcome[0]
    assert isinstance(response, httpx.Response), response
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, json.loads(response.text)["code"]


async def test_a_good_answer_arrives(evil: Hostile, platform: Platform) -> None:
    await evil.serve()
    outcome = await answered(platform, evil, lambda s: head(s, 200, 2, b"X-A: 1\r\n") + data(s, b"ok", frames.FLAG_END))
    assert (outcome[0].status_code, outcome[0].text, outcome[0].headers["x-a"]) == (200, "ok", "1")


@pytest.mark.parametrize(
    "block",
    [
        b"X: a\nSet-Cookie: injected=1\r\n",
        b"X: a\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"X: a\rb\r\n",
        b"X: a\0b\r\n",
        b"X\r\n",
        b"X : a\r\n",
        b" X: folded\r\n",
        b"X: a\r\n folded\r\n",
        b"X: no end",
    ],
    ids=repr,
)
async def test_header_injection_is_a_bad_gateway(evil: Hostile, platform: Platform, block: bytes) -> None:
    await evil.serve()
    outcome = await answered(platform, evil, lambda s: head(s, 200, 0, block, frames.FLAG_END))
    assert problem(outcome) == (502, "bad-backend-response")


@pytest.mark.parametrize(
    "block",
    [
        b"Content-Length: 99\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\nKeep-Alive: timeout=5\r\n",
        b"X-Request-Id: forged\r\n",
    ],
    ids=repr,
)
async def test_framing_headers_of_the_satellite_never_reach_the_client(
    evil: Hostile, platform: Platform, block: bytes
) -> None:
    await evil.serve()
    outcome = await answered(platform, evil, lambda s: head(s, 200, 2, block) + data(s, b"ok", frames.FLAG_END))
    response = outcome[0]
    if response.status_code == 502:
        assert problem(outcome) == (502, "bad-backend-response")
        return
    assert (response.status_code, response.text) == (200, "ok")
    assert response.headers["content-length"] == "2"
    assert "transfer-encoding" not in response.headers
    assert "keep-alive" not in response.headers
    assert response.headers.get("x-request-id") != "forged"


async def test_a_body_longer_than_declared_is_cut(evil: Hostile, platform: Platform) -> None:
    await evil.serve()
    outcome = await answered(platform, evil, lambda s: head(s, 200, 2), lambda s: data(s, b"ok, and HTTP/1.1 200 OK"))
    assert isinstance(outcome[0], httpx.TransportError) or problem(outcome) == (502, "bad-backend-response")
    assert (await evil.expect(frames.RESET)).payload == frames.U32.pack(frames.PROTOCOL)


async def test_a_body_shorter_than_declared_is_cut(evil: Hostile, platform: Platform) -> None:
    await evil.serve()
    outcome = await answered(platform, evil, lambda s: head(s, 200, 9), lambda s: data(s, b"short", frames.FLAG_END))
    assert isinstance(outcome[0], httpx.TransportError) or problem(outcome) == (502, "bad-backend-response")


@pytest.mark.parametrize("status", [99, 600, 65535])
async def test_a_status_out_of_range_is_a_bad_gateway(evil: Hostile, platform: Platform, status: int) -> None:
    await evil.serve()
    payload = status.to_bytes(2, "big") + (0).to_bytes(8, "big")
    outcome = await answered(platform, evil, lambda s: frames.frame(frames.HEAD, frames.FLAG_END, s, payload))
    assert problem(outcome) == (502, "bad-backend-response")


async def test_a_switch_of_protocols_that_nobody_asked_for_is_a_bad_gateway(evil: Hostile, platform: Platform) -> None:
    await evil.serve()
    outcome = await answered(platform, evil, lambda s: head(s, 101, 0, b"Upgrade: websocket\r\n"))
    assert problem(outcome) == (502, "bad-backend-response")


async def test_more_data_than_credit_ends_the_tunnel_and_costs_no_memory(evil: Hostile, platform: Platform) -> None:
    await evil.serve()
    before = resident(platform.hub(0))
    parts = urlsplit(platform.url(0, EVIL))
    loop = asyncio.get_running_loop()
    with socket.socket() as slow:  # a client that asks, and reads nothing
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        await loop.sock_connect(slow, (parts.hostname, parts.port))
        request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {platform.token}\r\n\r\n"
        await loop.sock_sendall(slow, request.encode())
        stream = (await evil.expect(frames.OPEN)).stream
        await evil.send(head(stream, 200, frames.UNKNOWN_LENGTH))
        flood = data(stream, bytes(frames.MAX_DATA)) * 16
        with contextlib.suppress(ConnectionClosed):
            for _ in range(64):  # 32 MiB; the largest window is far below
                await evil.send(flood)
        assert (await evil.goodbye())[0] == frames.FLOW_CONTROL
    assert resident(platform.hub(0)) - before < 32 * 1024 * 1024


async def test_a_second_head_ends_the_tunnel(evil: Hostile, platform: Platform) -> None:
    await evil.serve()
    outcome = await answered(platform, evil, lambda s: head(s, 200, 2), lambda s: head(s, 200, 2))
    assert isinstance(outcome[0], httpx.TransportError) or problem(outcome)[0] == 502
    assert (await evil.goodbye())[0] == frames.PROTOCOL


async def test_data_after_the_end_ends_the_tunnel(evil: Hostile, platform: Platform) -> None:
    await evil.serve()
    outcome = await answered(
        platform, evil, lambda s: head(s, 200, 2) + data(s, b"ok", frames.FLAG_END) + data(s, b"more")
    )
    assert outcome[0].text == "ok"
    assert (await evil.goodbye())[0] == frames.PROTOCOL


async def test_a_flood_of_interim_heads_ends_the_tunnel(evil: Hostile, platform: Platform) -> None:
    await evil.serve()
    outcome = await answered(platform, evil, lambda s: head(s, 103, 0, flags=frames.FLAG_INTERIM) * 40)
    assert problem(outcome)[0] == 502
    assert (await evil.goodbye())[0] == frames.PROTOCOL


async def test_a_tunnel_that_ends_before_the_answer_is_a_bad_gateway_at_once(evil: Hostile, platform: Platform) -> None:
    await evil.serve()
    loop = asyncio.get_running_loop()
    request = loop.create_task(call(platform))
    await evil.expect(frames.OPEN)
    started = loop.time()
    evil.socket.transport.abort()
    response = await request
    assert problem([response]) == (502, "tunnel-lost")
    assert loop.time() - started < 1.0


async def test_a_ping_flood_from_a_peer_that_never_reads_is_ended_and_costs_no_memory(
    platform: Platform, tunnel_url: str, identity: Path
) -> None:
    async with tunnel(tunnel_url, identity, EVIL) as evil:
        await evil.serve()
        before = resident(platform.hub(0))
        evil.socket.transport.pause_reading()
        evil.socket.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        burst = frames.frame(frames.PING, 0, 0, bytes(8)) * 20_000
        highest = before
        async with asyncio.timeout(15):
            while any(one["satellite"] == EVIL for one in await asyncio.to_thread(platform.api, "tunnels")):
                with contextlib.suppress(ConnectionClosed):
                    await evil.send(burst)
                highest = max(highest, resident(platform.hub(0)))
        assert highest - before < 32 * 1024 * 1024
        evil.socket.transport.abort()


async def test_websocket_pings_that_are_never_read_cost_no_memory(
    platform: Platform, tunnel_url: str, identity: Path
) -> None:
    async with tunnel(tunnel_url, identity, EVIL) as evil:
        await evil.serve()
        before = resident(platform.hub(0))
        evil.socket.transport.pause_reading()
        masked = b"\x89\xfd\0\0\0\0" + bytes(125)  # a PING of 125 bytes, RFC 6455 5.5.2
        highest = before
        for _ in range(200):
            if evil.socket.transport.get_write_buffer_size() < 1_000_000:
                evil.socket.transport.write(masked * 1000)
            await asyncio.sleep(0.01)
            highest = max(highest, resident(platform.hub(0)))
        assert highest - before < 16 * 1024 * 1024
        evil.socket.transport.abort()


async def test_peers_that_say_nothing_are_let_go(platform: Platform, tunnel_url: str, identity: Path) -> None:
    async def no_handshake() -> None:
        host, _, port = tunnel_url.removeprefix("wss://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=tls(identity))
        async with asyncio.timeout(12):
            assert not await reader.read(100)
        writer.close()

    async def no_greeting() -> None:
        async with tunnel(tunnel_url, identity, EVIL) as evil:
            code, reason = await evil.goodbye(12)
        assert code == frames.PROTOCOL
        assert "greeting" in reason

    async def no_pong() -> None:
        async with tunnel(tunnel_url, identity, EVIL) as evil:
            await evil.serve()
            started = asyncio.get_running_loop().time()
            assert await ended(evil, 16)
            assert 5.0 < asyncio.get_running_loop().time() - started < 15.0
        assert (await call(platform)).status_code == 503

    await asyncio.gather(no_handshake(), no_greeting(), no_pong())


async def ended(evil: Hostile, seconds: float) -> bool:
    """Whether the hub ends the connection within that time, whatever it says before."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            try:
                while True:
                    await evil.socket.recv()
            except ConnectionClosed:
                return True
    return False


def resident(pid: int) -> int:
    """Bytes of memory that a process has in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
