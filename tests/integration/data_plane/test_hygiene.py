from __future__ import annotations

import re

import pytest

from tests.integration.data_plane.conftest import Platform
from tests.integration.data_plane.peers import Answer, Head, Peer, ok

pytestmark = pytest.mark.integration


async def seen(platform: Platform, *fields: str, kind: str = "http", answer: bytes = ok()) -> tuple[Head, Answer]:
    """What the backend got for a GET with these fields, and what the client got back."""
    heads: list[Head] = []

    async def script(peer: Peer) -> None:
        heads.append((await peer.request())[0])
        await peer.send(answer)

    async with platform.backend("plain", script):
        got = await platform.ask(platform.head("GET", "/path?q=1", *fields), kind=kind)
    return heads[0], got


async def test_the_backend_hears_who_calls_and_how(platform: Platform) -> None:
    head, answer = await seen(platform, kind="public")
    assert head.first == "GET /path?q=1 HTTP/1.1"
    assert head.get("host") == f"127.0.0.1:{platform.services.ports['plain']}"
    assert head.get("x-forwarded-for") == "127.0.0.1"
    assert head.get("x-forwarded-proto") == "https"
    assert head.get("x-forwarded-host") == "hub.test"
    assert head.get("x-forwarded-prefix") == "/s/sat-1/plain"
    assert head.get("forwarded") == 'for=127.0.0.1;host="hub.test";proto=https'
    assert head.get("via") == "1.1 platformctl"
    assert head.get("platform-identity") == "token:admin"
    assert head.get("x-request-id") == answer.head.get("x-request-id") != None  # noqa: E711
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", head.get("traceparent") or "")


async def test_the_credential_of_the_hub_stays_at_the_hub(platform: Platform) -> None:
    head, _ = await seen(platform)
    assert head.get("authorization") is None
    # A credential that the hub did not use is the backend's.
    request = platform.head("GET", "/").replace(b"Authorization:", b"Proxy-Authorization:", 1)
    heads: list[Head] = []

    async def script(peer: Peer) -> None:
        heads.append((await peer.request())[0])
        await peer.send(ok())

    async with platform.backend("plain", script):
        await platform.ask(request.replace(b"\r\n\r\n", b"\r\nAuthorization: Basic YTpi\r\n\r\n"))
    assert heads[0].get("authorization") == "Basic YTpi"
    assert heads[0].get("proxy-authorization") is None


FORGED = {
    "Platform-Identity": "token:root",
    "Platform-Anything": "x",
    "platform_identity": "token:root",
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "/evil",
    "X-Real-IP": "6.6.6.6",
    "Forwarded": "for=6.6.6.6",
    "Via": "1.1 evil",
    "x_forwarded_for": "6.6.6.6",
}


async def test_nothing_that_only_the_hub_may_say_comes_from_a_client(platform: Platform) -> None:
    head, _ = await seen(platform, *(f"{name}: {value}" for name, value in FORGED.items()))
    said = "\n".join(f"{name}: {value}" for name, value in head.fields)
    for value in ("root", "6.6.6.6", "gopher", "evil"):
        assert value not in said
    for name in ("platform-identity", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via"):
        assert len(head.all(name)) == 1, name
    assert head.all("platform-anything") == head.all("x-forwarded-port") == head.all("x-real-ip") == []


async def test_hop_by_hop_fields_stop_at_the_hub_in_both_directions(platform: Platform) -> None:
    head, answer = await seen(
        platform,
        "Connection: keep-alive, X-Private",
        "X-Private: 1",
        "Keep-Alive: timeout=5",
        "TE: gzip",
        "Proxy-Connection: keep-alive",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
        "X-Public: 1",
        answer=ok(b"ok", "Connection: X-Inner", "X-Inner: 1", "Keep-Alive: timeout=9", "X-Outer: 1", "Upgrade: h2c"),
    )
    for name in ("connection", "x-private", "keep-alive", "te", "proxy-connection", "upgrade", "http2-settings"):
        assert head.get(name) is None, name
    assert head.get("x-public") == "1"
    for name in ("connection", "x-inner", "keep-alive", "upgrade"):
        assert answer.head.get(name) is None, name
    assert answer.head.get("x-outer") == "1"


async def test_a_trace_goes_on_as_a_child_and_a_request_id_as_it_is(platform: Platform) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = f"00-{trace}-00f067aa0ba902b7-01"
    head, answer = await seen(platform, f"traceparent: {parent}", "tracestate: a=b", "X-Request-Id: my-id_1")
    version, trace_id, span, flags = (head.get("traceparent") or "").split("-")
    assert (version, trace_id, flags) == ("00", trace, "01")
    assert span != "00f067aa0ba902b7"
    assert head.get("tracestate") == "a=b"
    assert head.get("x-request-id") == answer.head.get("x-request-id") == "my-id_1"


@pytest.mark.parametrize("parent", ["00-zz-00f067aa0ba902b7-01", "garbage", "00-" + "0" * 32 + "-00f067aa0ba902b7-01"])
async def test_a_broken_trace_is_replaced(platform: Platform, parent: str) -> None:
    head, _ = await seen(platform, f"traceparent: {parent}", "tracestate: a=b")
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", head.get("traceparent") or "")
    assert head.get("traceparent") != parent
    assert head.get("tracestate") is None


@pytest.mark.parametrize("given", ["x" * 65, "a b", "<script>", '"'])
async def test_a_request_id_that_could_do_harm_in_a_log_is_replaced(platform: Platform, given: str) -> None:
    head, answer = await seen(platform, f"X-Request-Id: {given}")
    assert head.get("x-request-id") == answer.head.get("x-request-id")
    assert head.get("x-request-id") != given


async def test_each_request_of_a_repeated_head_has_an_id_and_a_span_of_its_own(platform: Platform) -> None:
    heads: list[Head] = []

    async def script(peer: Peer) -> None:
        while True:
            heads.append((await peer.request())[0])
            await peer.send(ok())

    async with platform.backend("plain", script), await platform.connect() as peer:
        ids = []
        for _ in range(4):
            await peer.send(platform.head("GET", "/again"))
            ids.append((await peer.answer()).head.get("x-request-id"))
    assert [head.get("x-request-id") for head in heads] == ids
    assert len(set(ids)) == len({head.get("traceparent") for head in heads}) == 4


async def test_only_a_trusted_proxy_is_believed_about_the_client(platform: Platform) -> None:
    heads: list[Head] = []

    async def script(peer: Peer) -> None:
        heads.append((await peer.request())[0])
        await peer.send(ok())

    forwarded = [
        "X-Forwarded-For: 9.9.9.9",
        "X-Forwarded-For: 10.1.2.3",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: shop.test",
    ]
    async with platform.backend("plain", script), await Peer.connect(platform.port(), source="127.0.0.9") as peer:
        await peer.send(platform.head("GET", "/", *forwarded))
        await peer.answer()
    head = heads[0]
    assert head.get("x-forwarded-for") == "9.9.9.9, 10.1.2.3, 127.0.0.9"
    assert (head.get("x-forwarded-proto"), head.get("x-forwarded-host")) == ("https", "shop.test")


async def test_the_host_form_of_an_address_has_no_prefix(platform: Platform) -> None:
    heads: list[Head] = []

    async def script(peer: Peer) -> None:
        heads.append((await peer.request())[0])
        await peer.send(ok())

    request = f"GET /s/sat-2/other HTTP/1.1\r\nHost: plain.sat-1.platform.localhost:1\r\n{platform.auth}\r\n"
    async with platform.backend("plain", script):
        assert (await platform.ask(request.encode())).status == 200
    assert heads[0].first == "GET /s/sat-2/other HTTP/1.1"
    assert heads[0].get("x-forwarded-prefix") is None
    assert heads[0].get("x-forwarded-host") == "plain.sat-1.platform.localhost:1"
