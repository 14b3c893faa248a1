from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from platformctl.errors import UsageError
from platformctl.verify.load import Target, closed_loop, percentile
from platformctl.verify.samples import SampleServices

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
async def services() -> AsyncIterator[SampleServices]:
    samples = SampleServices()
    await samples.start()
    yield samples
    await samples.stop()


@pytest.fixture
async def peer() -> AsyncIterator[Callable[..., object]]:
    """Starts a server that answers the n-th request of a connection with the n-th of `answers`, then closes."""
    servers: list[asyncio.Server] = []
    tasks: set[asyncio.Task[None] | None] = set()

    async def start(*answers: bytes) -> str:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.current_task())
            try:
                for answer in answers:
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(answer)
            except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        servers.append(await asyncio.start_server(connected, "127.0.0.1", 0))
        return f"http://127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}/"

    yield start
    for server in servers:
        server.close()
    for task in tasks:
        assert task is not None
        task.cancel()
    await asyncio.sleep(0)


async def test_every_request_of_the_budget_is_answered(services: SampleServices) -> None:
    result = await closed_loop(Target(services.url("http") + "/headers"), connections=4, requests=100)
    assert (result.requests, result.failed, result.connections) == (100, 0, 4)
    assert 0 < result.p50_ms <= result.p90_ms <= result.p99_ms <= result.max_ms
    assert result.rps == pytest.approx(100 / result.seconds, rel=0.1)
    assert result.bytes_received > 100 * 50


async def test_bodies_go_out_and_chunked_answers_come_back(services: SampleServices) -> None:
    echo = Target(services.url("http") + "/echo", method="POST", body=b"x" * 100_000)
    result = await closed_loop(echo, connections=2, requests=10)
    assert (result.requests, result.failed) == (10, 0)
    assert result.bytes_received > 10 * 100_000
    events = Target(services.url("http") + "/events?count=2&interval=0")
    assert (await closed_loop(events, connections=2, requests=10)).requests == 10


async def test_answers_to_head_have_no_body_to_wait_for(services: SampleServices) -> None:
    result = await closed_loop(Target(services.url("http") + "/healthz", method="HEAD"), connections=1, requests=5)
    assert (result.requests, result.failed) == (5, 0)


async def test_a_duration_ends_the_run(services: SampleServices) -> None:
    result = await closed_loop(Target(services.url("http") + "/"), connections=2, seconds=0.05)
    assert result.requests > 0
    assert result.failed == 0
    assert result.seconds < 5


async def test_error_statuses_are_counted_by_kind_and_have_no_latency(services: SampleServices) -> None:
    result = await closed_loop(Target(services.url("http") + "/status/503"), connections=2, requests=6)
    assert result.errors == {"status 503": 6}
    assert (result.requests, result.p99_ms) == (0, 0.0)


async def test_a_connection_that_the_peer_closes_is_opened_again(peer: Callable[..., object]) -> None:
    url = await peer(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))  # type: ignore[misc]
    result = await closed_loop(Target(url), connections=1, requests=5)
    assert (result.requests, result.failed) == (5, 0)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", "connection lost"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", "connection lost"),
        (b"nonsense\r\n\r\n", "malformed response"),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "unexpected upgrade"),
    ],
)
async def test_what_the_peer_does_wrong_is_counted_by_kind(
    peer: Callable[..., object], answer: bytes, kind: str
) -> None:
    result = await closed_loop(Target(await peer(answer)), connections=1, requests=2)  # type: ignore[misc]
    assert dict(result.errors) == {kind: 2}


async def test_an_interim_answer_is_not_the_answer(peer: Callable[..., object]) -> None:
    url = await peer(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)  # type: ignore[misc]
    result = await closed_loop(Target(url), connections=1, requests=1)
    assert (result.requests, result.failed) == (1, 0)


async def test_a_target_that_is_not_there_is_an_error_by_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformctl.verify.load.RECONNECT_PAUSE", 0.0)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = await closed_loop(Target(f"http://127.0.0.1:{unused.getsockname()[1]}/"), connections=2, requests=3)
    assert result.errors == {"connect: Connection refused": 3}


async def test_a_load_without_a_bound_or_with_a_bad_url_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        await closed_loop(Target("http://127.0.0.1:1/"), connections=1)
    with pytest.raises(UsageError):
        await closed_loop(Target("ftp://127.0.0.1/"), connections=1, requests=1)


def test_a_target_does_not_show_its_credential() -> None:
    assert "secret" not in repr(Target("http://h/", headers={"authorization": "Bearer secret"}))


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, 0.0),
        ([7.0], 0.99, 7.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
        (list(range(1, 101)), 0.99, 99),
        ([1, 2], 1.0, 2),
    ],
)
def test_percentiles_are_by_nearest_rank(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected
