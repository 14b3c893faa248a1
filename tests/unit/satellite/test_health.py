"""Health checks against real listeners on loopback; the loops are tested with checks that the test answers."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from platformctl.access.pins import ca_pin
from platformctl.satellite.backend_trust import backend_tls
from platformctl.satellite.exports import BackendTrust, Export, parse_exports
from platformctl.satellite.health import HealthChecker, probe

Serve = Callable[..., Awaitable[int]]


def export(to: str, check: str = "type: tcp", name: str = "x") -> Export:
    return parse_exports(f"services: [{{name: {name}, to: '{to}', health: {{timeout: 300ms, {check}}}}}]")[name]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a listener that answers each connection with the given bytes (None: with nothing, and stays open)."""
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []
    requests: list[bytes] = []

    async def start(answer: bytes | None, context: ssl.SSLContext | None = None) -> int:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            try:
                requests.append(await reader.readuntil(b"\r\n\r\n"))
                if answer is not None:
                    writer.write(answer)
                    writer.close()
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
        servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    start.requests = requests  # type: ignore[attr-defined]
    yield start
    for server in servers:
        server.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


async def test_a_tcp_check_passes_when_the_port_is_open_and_fails_when_not(serve: Serve, closed_port: int) -> None:
    assert await probe(export(f"tcp://127.0.0.1:{await serve(b'')}")) == ""
    assert await probe(export(f"tcp://127.0.0.1:{closed_port}")) != ""
    assert "refused" in (await probe(export(f"tcp://127.0.0.1:{closed_port}"))).lower()


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.0 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", ""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "answered 404"),
        (b"HTTP/1.1 503 Unavailable\r\n\r\n", "answered 503"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 Oh\r\n\r\n", "answered 500"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP/1.1"),
        (b"HTTP/1.1 abc\r\n\r\n", "does not speak HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n", "closed the connection before it answered"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 20000 + b"\r\n\r\n", "sent a response head that is too long"),
        (None, "did not answer in 0.3 s"),
    ],
)
async def test_an_http_check_wants_2xx_or_3xx(serve: Serve, answer: bytes | None, result: str) -> None:
    found = await probe(export(f"http://127.0.0.1:{await serve(answer)}", "type: http"))

    assert found.endswith(result) if answer is None or result == "" else result in found
    assert (found == "") == (result == "")


async def test_an_http_check_asks_for_the_path_below_the_base(serve: Serve) -> None:
    port = await serve(b"HTTP/1.1 200 OK\r\n\r\n")
    await probe(export(f"http://127.0.0.1:{port}/base", "type: http, path: '/healthz?x=1'"))

    [request] = serve.requests  # type: ignore[attr-defined]
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /base/healthz?x=1 HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}" in lines


async def test_an_https_backend_is_verified_by_ca_or_pin(serve: Serve, tmp_path: Path) -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("backend.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    port = await serve(b"HTTP/1.1 200 OK\r\n\r\n", context)
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    pin = ca_pin(leaf.cert_chain_pems[0].bytes())
    checked = export(f"https://127.0.0.1:{port}", "type: http")

    async def result(**trust: str) -> str:
        return await probe(replace(checked, trust=BackendTrust(**trust)))

    assert await result(ca_file=str(tmp_path / "ca.pem"), server_name="backend.test") == ""
    assert "is not trusted" in await result(ca_file=str(tmp_path / "ca.pem"))
    assert "is not trusted" in await result()
    assert await result(pin=pin) == ""
    assert pin in await result(pin="sha256:" + "0" * 64)
    assert "cannot be read as a PEM bundle" in await result(ca_file=str(tmp_path / "absent.pem"))


def test_a_backends_context_is_built_once_and_again_when_its_ca_file_changed(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    trust = BackendTrust(ca_file=str(path))
    first = backend_tls(trust)
    assert backend_tls(trust) is first

    trustme.CA().cert_pem.write_to_path(tmp_path / "new.pem")
    (tmp_path / "new.pem").replace(path)

    assert backend_tls(trust) is not first


class Answers:
    """The check that a test controls: it waits for the next result that the test gives."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str] = asyncio.Queue()
        self.changes: list[tuple[str, bool]] = []
        self.changed = asyncio.Event()

    async def check(self, _: Export) -> str:
        return await self.queue.get()

    def on_change(self, export: Export, healthy: bool) -> None:
        self.changes.append((str(export.backend), healthy))
        self.changed.set()

    async def give(self, *results: str) -> None:
        for result in results:
            self.queue.put_nowait(result)
        async with asyncio.timeout(5):
            while not self.queue.empty():  # noqa: ASYNC110  # asyncio.Queue tells only those who get
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.001)


@pytest.fixture
async def answers() -> Answers:
    return Answers()


@pytest.fixture
async def checker(answers: Answers) -> AsyncIterator[HealthChecker]:
    checker = HealthChecker(answers.on_change, jitter=lambda: 0.5, check=answers.check)
    yield checker
    checker.close()
    await asyncio.sleep(0)


def quick(to: str = "tcp://h:1", **spec: str) -> Export:
    made = export(to)
    return replace(made, health=replace(made.health, interval=0.001), spec=replace(made.spec, **spec))  # type: ignore[arg-type]


async def test_an_export_is_reported_healthy_after_its_first_success_and_down_after_three_failures(
    answers: Answers, checker: HealthChecker
) -> None:
    checker.update([quick()], [])
    assert not checker.healthy("x")
    await answers.give("")
    assert answers.changes == [("tcp://h:1", True)]
    assert checker.healthy("x")

    await answers.give("no", "no")
    assert len(answers.changes) == 1
    await answers.give("no")
    assert answers.changes[1:] == [("tcp://h:1", False)]
    assert checker.report() == {"x": {"healthy": False, "reason": "no"}}

    await answers.give("", "")
    assert answers.changes[2:] == [("tcp://h:1", True)]


async def test_a_new_address_is_checked_anew(answers: Answers, checker: HealthChecker) -> None:
    checker.update([quick("tcp://h:1")], [])
    await answers.give("")
    checker.update([quick("tcp://h:2")], [])
    assert not checker.healthy("x")

    await answers.give("no")

    assert answers.changes == [("tcp://h:1", True), ("tcp://h:2", False)]


async def test_a_change_of_something_else_is_reported_at_once_and_keeps_the_state(
    answers: Answers, checker: HealthChecker
) -> None:
    checker.update([quick()], [])
    await answers.give("")
    checker.update([quick(lane="bulk")], [])

    assert answers.changes == [("tcp://h:1", True)] * 2
    assert checker.healthy("x")
    await answers.give("no", "no", "no")
    assert answers.changes[2:] == [("tcp://h:1", False)]


async def test_a_removed_export_is_checked_no_more(answers: Answers, checker: HealthChecker) -> None:
    checker.update([quick()], [])
    await answers.give("")
    checker.update([], ["x", "never-there"])
    answers.queue.put_nowait("no")
    await asyncio.sleep(0.01)

    assert answers.queue.qsize() == 1
    assert checker.report() == {}
    assert not checker.healthy("x")


async def test_an_export_without_checks_is_healthy_at_once_and_stays_so(
    answers: Answers, checker: HealthChecker
) -> None:
    unchecked = export("tcp://h:1", "type: none")
    checker.update([unchecked], [])
    checker.update([unchecked], [])

    assert answers.changes == [("tcp://h:1", True)] * 2
    assert checker.healthy("x")


async def test_a_backend_that_comes_up_is_live_long_before_its_interval(serve: Serve) -> None:
    answers = Answers()
    checker = HealthChecker(answers.on_change, jitter=lambda: 0.5)
    checker.update([export(f"tcp://127.0.0.1:{await serve(b'')}", "interval: 1h")], [])

    async with asyncio.timeout(2):
        await answers.changed.wait()

    assert answers.changes[0][1] is True
    checker.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("healthy", "jitter", "pause"), [(True, 0.5, 10.0), (True, 0.0, 9.0), (True, 1.0, 11.0), (False, 0.5, 1.0)]
)
def test_the_pause_is_jittered_and_short_while_down(healthy: bool, jitter: float, pause: float) -> None:
    from platformctl.satellite.health_state import HealthState

    state = HealthState(1, 1)
    state.record("" if healthy else "no")
    checker = HealthChecker(lambda *_: None, jitter=lambda: jitter)

    assert checker._pause(export("tcp://h:1", "interval: 10s"), state) == pytest.approx(pause)
