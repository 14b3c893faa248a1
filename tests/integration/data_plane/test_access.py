from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from tests.integration.data_plane.conftest import Platform
from tests.integration.data_plane.peers import Answer, Peer, serving

pytestmark = pytest.mark.integration


async def ask(platform: Platform, path: str, token: str | None, method: str = "GET", kind: str = "http") -> Answer:
    auth = f"Authorization: Bearer {token}\r\n" if token else ""
    request = f"{method} {path} HTTP/1.1\r\nHost: hub.test\r\n{auth}Content-Length: 0\r\n\r\n"
    return await platform.ask(request.encode(), method=method, kind=kind)


async def last(platform: Platform, **wanted: object) -> dict[str, object]:
    """The audit record with these values; there must be exactly one. A thread writes it, so it may take a moment."""
    deadline = time.monotonic() + 3
    while True:
        found = [line for line in platform.audit() if all(line.get(key) == value for key, value in wanted.items())]
        if found or time.monotonic() > deadline:
            assert len(found) == 1, found
            return found[0]
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", ["http", "public"])
async def test_without_a_token_it_is_401_and_audited(platform: Platform, kind: str) -> None:
    answer = await ask(platform, "/s/sat-1/plain/secret?q=1", None, kind=kind)
    assert (answer.status, json.loads(answer.body)["code"]) == (401, "unauthenticated")
    assert (answer.head.get("www-authenticate") or "").startswith("Bearer")
    record = await last(platform, request_id=answer.head.get("x-request-id"))
    assert record["decision"] == "deny"
    assert (record["identity"], record["status"]) == ("anonymous", 401)
    assert (record["satellite"], record["service"], record["method"]) == ("sat-1", "plain", "GET")
    assert record["path"] == "/secret"
    assert record["client"] == "127.0.0.1"


@pytest.mark.parametrize("token", ["nonsense", "pct_00000000.aaaaaaaa", "x" * 5000])
async def test_a_wrong_token_is_401_and_not_in_the_audit(platform: Platform, token: str) -> None:
    answer = await ask(platform, "/s/sat-1/plain/", token)
    assert (answer.status, json.loads(answer.body)["code"]) == (401, "unauthenticated")
    record = await last(platform, request_id=answer.head.get("x-request-id"))
    assert record["status"] == 401
    assert token not in json.dumps(record)


async def test_a_denied_identity_is_403_and_audited(platform: Platform) -> None:
    token = Path(platform.env["client_tokens"]["denied"]).read_text().strip()
    answer = await ask(platform, "/s/sat-1/plain/", token)
    assert (answer.status, json.loads(answer.body)["code"]) == (403, "access-denied")
    record = await last(platform, request_id=answer.head.get("x-request-id"))
    assert (record["identity"], record["status"]) == ("token:denied", 403)


async def test_method_and_path_decide_on_a_kept_connection_too(platform: Platform) -> None:
    token = Path(platform.env["client_tokens"]["denied"]).read_text().strip()
    auth = f"Host: h\r\nAuthorization: Bearer {token}\r\n"
    cases = [
        ("GET /s/sat-1/other/open/a", 200),
        ("GET /s/sat-1/other/open/b", 200),
        ("GET /s/sat-1/other/open/../closed", 403),
        ("GET /s/sat-1/other/open/%2e%2e/closed", 403),
        ("GET /s/sat-1/other/closed", 403),
        ("GET /s/sat-1/other/open/a", 200),
        ("DELETE /s/sat-1/other/open/a", 403),
        ("GET /s/sat-1/plain/open/a", 403),
        ("GET /s/sat-1/other/open/c", 200),
    ]
    async with platform.backend("other", serving()), await platform.connect() as peer:
        for line, status in cases:
            await peer.send(f"{line} HTTP/1.1\r\n{auth}\r\n".encode())
            assert (await peer.answer()).status == status, line


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/s/sat-1/nothing/", "service-unknown"),
        ("/s/nowhere/plain/", "satellite-unknown"),
        ("/elsewhere", "path-unknown"),
        ("/s/sat-1/plain%2f/", "name-invalid"),
    ],
)
async def test_what_is_not_there_is_a_clean_404(platform: Platform, path: str, code: str) -> None:
    answer = await ask(platform, path, platform.token)
    problem = json.loads(answer.body)
    assert problem["code"] == code
    assert answer.status == (400 if code == "name-invalid" else 404)
    assert answer.head.get("connection") == ("close" if answer.status == 400 else None)


async def test_who_may_not_call_is_not_told_what_exists(platform: Platform) -> None:
    token = Path(platform.env["client_tokens"]["denied"]).read_text().strip()
    there = await ask(platform, "/s/sat-1/plain/", token)
    nowhere = await ask(platform, "/s/sat-1/nothing/", token)
    assert there.status == nowhere.status == 403


async def test_a_tcp_port_that_the_policy_denies_is_cut_and_audited(platform: Platform) -> None:
    port = int(platform.env["tcp_addresses"]["slow-raw.sat-1"].rpartition(":")[2])
    async with await Peer.connect(port) as peer:
        assert await peer.closed() == b""
    record = await last(platform, service="slow-raw")
    assert (record["decision"], record["identity"], record["client"]) == ("deny", "anonymous", "127.0.0.1")


async def test_a_head_request_is_refused_without_a_body(platform: Platform) -> None:
    async with await platform.connect() as peer:
        for _ in range(2):
            await peer.send(b"HEAD /s/sat-1/plain/ HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = await peer.answer("HEAD")
            assert answer.status == 401
            assert int(answer.head.get("content-length") or 0) > 0
        assert await peer.is_quiet()
