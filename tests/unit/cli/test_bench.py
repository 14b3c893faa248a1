"""The load generator against responses of every framing (RFC 9112 section 6.3)."""

from __future__ import annotations

import asyncio

import pytest

from platformctl.cli.loading import LoadResult, Request, _answer, load
from tests.unit.cli.conftest import Cli, FakeHub


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", (200, 5, True)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", (200, 5, False)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", (200, 0, False)),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, 0, True)),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx", (404, 1, True)),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;a=b\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nT: x\r\n\r\n",
            (200, 19, True),
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", (200, 13, False)),
    ],
)
async def test_an_answer_is_read_to_its_end(raw: bytes, expected: tuple[int, int, bool]) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(raw)
    reader.feed_eof()
    assert await _answer(reader) == expected
    assert await reader.read() == b""


async def test_a_body_that_ends_early_is_an_error() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
    reader.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError):
        await _answer(reader)


def test_a_request_has_path_query_and_host() -> None:
    request = Request.get("http://h.example:8080/a?b=c", None, "ct-1.secret")
    assert (request.host, request.port) == ("h.example", 8080)
    assert request.head.startswith(b"GET /a?b=c HTTP/1.1\r\nHost: h.example:8080\r\n")
    assert request.head.endswith(b"Authorization: Bearer ct-1.secret\r\n\r\n")
    assert Request.get("http://h", None, None).head.startswith(b"GET / HTTP/1.1\r\nHost: h\r\n")
    assert "secret" not in repr(request)


def test_percentiles_are_of_the_sorted_latencies() -> None:
    result = LoadResult(seconds=2.0, latencies=[n / 1000 for n in range(1, 101)])
    assert result.percentile(0.5) == 0.051
    assert result.percentile(0.99) == 0.1
    assert result.percentile(1.0) == 0.1
    assert LoadResult().percentile(0.5) == 0.0
    assert result.to_dict()["requests_per_second"] == 50.0


async def test_a_server_that_refuses_is_counted_and_not_hammered() -> None:
    result = await load(Request("127.0.0.1", 1, None, b"GET / HTTP/1.1\r\n\r\n"), 1, 0.2)
    assert 1 <= result.errors["ConnectionRefusedError"] <= 5
    assert result.failed == sum(result.errors.values())


def test_bench_prints_figures_and_sends_the_token_to_its_hub_alone(cli: Cli, hub: FakeHub, token_file: object) -> None:
    hub.answers["GET /s/sat-1/api/"] = (200, {"ok": True})
    flags = ["-d", "0.1", "-c", "2", "--hub", hub.url, "--token-file", str(token_file)]
    outcome = cli("bench", "/s/sat-1/api/", *flags, "-o", "json")
    assert outcome.code == 0
    figures = outcome.json
    assert figures["requests"] == len(hub.asked) > 0
    assert figures["statuses"] == {"200": figures["requests"]}
    assert {asked.authorization for asked in hub.asked} == {"Bearer ct-abc.secret"}
    hub.asked.clear()
    other = hub.url.replace("127.0.0.1", "localhost")
    assert cli("bench", f"{other}/s/sat-1/api/", *flags).code == 0
    assert {asked.authorization for asked in hub.asked} == {None}


def test_bench_fails_when_a_request_does(cli: Cli, hub: FakeHub) -> None:
    outcome = cli("bench", f"{hub.url}/nothing", "-d", "0.1", "-c", "1")
    assert outcome.code == 1
    assert "'404'" in outcome.out


def test_what_is_no_url_is_refused(cli: Cli) -> None:
    assert cli("bench", "api").code == 2
