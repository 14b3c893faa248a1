"""The joining client against listeners that are not hubs, or not honest. What a hub does is in hub/test_join.py."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from platformctl.access import pki
from platformctl.errors import HubUnreachable, JoinRefused, PlatformError, StoreError
from platformctl.net.joining import CA_PATH, JOIN_PROTOCOL
from platformctl.satellite.identity_files import NewIdentity
from platformctl.satellite.joiner import JoinedIdentity, join

Answer = Callable[[dict[str, Any]], "str | None"]


def authority() -> pki.Authority:
    key = pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))
    return pki.Authority.load(*pki.create_ca(time.time(), "hub.test", key, entropy=secrets.token_bytes(16)))


CA = authority()
PIN = pki.ca_pin(CA.cert_pem)


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    key = pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))
    cert = pki.sign_server(CA, ["localhost"], [], time.time(), key=key.public_key(), entropy=secrets.token_bytes(16))
    (tmp_path / "s.crt").write_bytes(cert)
    (tmp_path / "s.key").write_bytes(pki.key_pem(key))
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(tmp_path / "s.crt", tmp_path / "s.key")
    return made


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


Talk = Callable[..., Awaitable[JoinedIdentity]]


@pytest.fixture
async def talk(context: ssl.SSLContext, state: Path) -> AsyncIterator[Talk]:
    """Join at a WebSocket server whose answers the test makes; None hangs up without one."""
    stops: list[Callable[[], Awaitable[None]]] = []

    async def start(*answers: Answer, subprotocol: bool = True, **more: Any) -> JoinedIdentity:
        async def handle(ws: ServerConnection) -> None:
            request = json.loads(await ws.recv())
            for answer in answers:
                text = answer(request)
                if text is None:
                    return
                await ws.send(text)
            await ws.wait_closed()

        def serve_ca(_: ServerConnection, request: Request) -> Response | None:
            if request.path == CA_PATH:
                return Response(200, "OK", Headers({"Content-Length": str(len(CA.cert_pem))}), CA.cert_pem)
            return None

        protocols: Any = [JOIN_PROTOCOL] if subprotocol else None
        server = await serve(
            handle, "127.0.0.1", 0, ssl=context, process_request=serve_ca, subprotocols=protocols, close_timeout=0.1
        )

        async def stop() -> None:
            server.close()
            await server.wait_closed()

        stops.append(stop)
        port = server.sockets[0].getsockname()[1]
        given: dict[str, Any] = {"timeout": 2.0} | more
        return await join(
            f"https://localhost:{port}", "id.secret", PIN, "edge-1", {}, state, entropy=secrets.token_bytes, **given
        )

    yield start
    for stop in stops:
        await stop()


def accepted(**change: Any) -> Answer:
    def answer(request: dict[str, Any]) -> str:
        cert = pki.sign_satellite(
            CA, request["csr"].encode(), request["name"], time.time(), entropy=secrets.token_bytes(16)
        )
        good = {"status": "accepted", "name": request["name"], "labels": {}, "certificate": cert.decode()}
        return json.dumps(good | {"ca": CA.cert_pem.decode()} | change)

    return answer


def certificate(name: str) -> str:
    csr = pki.make_csr(pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES)), name)
    return pki.sign_satellite(CA, csr, name, time.time(), entropy=secrets.token_bytes(16)).decode()


def text(value: str) -> Answer:
    return lambda _: value


PENDING = text('{"status": "pending", "fingerprint": "sha256:1"}')


async def test_a_hub_that_names_no_replicas_is_the_only_one(talk: Talk, state: Path) -> None:
    joined = await talk(accepted())

    assert joined.tunnel_urls[0].startswith("wss://localhost:")
    assert sorted(os.listdir(state)) == ["ca.pem", "identity.crt", "identity.key"]


@pytest.mark.parametrize(
    ("answers", "kind", "message"),
    [
        ([text('{"status": "refused", "code": "x", "detail": "no", "hint": "why"}')], JoinRefused, "^no$"),
        ([text("{}")], JoinRefused, "unknown kind"),
        ([text("nonsense")], JoinRefused, "not JSON"),
        ([PENDING, PENDING], JoinRefused, "said twice"),
        ([lambda _: None], HubUnreachable, "closed the connection before it answered"),
        ([accepted(certificate="junk")], JoinRefused, "cannot be read"),
        ([accepted(certificate=CA.cert_pem.decode())], JoinRefused, "not for satellite 'edge-1'"),
        ([accepted(ca="junk")], PlatformError, "not a PEM certificate"),
        ([accepted(name="edge-2")], JoinRefused, "not for satellite 'edge-1'"),
        ([accepted(certificate=certificate("edge-2"))], JoinRefused, "not for satellite 'edge-1'"),
        ([accepted(certificate=certificate("edge-1"))], JoinRefused, "not for satellite 'edge-1'"),
    ],
)
async def test_a_bad_answer_is_named_and_leaves_nothing(
    talk: Talk, state: Path, answers: list[Answer], kind: type[PlatformError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        await talk(*answers)

    assert caught.value.hint
    assert os.listdir(state) == []


async def test_a_websocket_server_that_does_not_speak_the_protocol_gets_no_token(talk: Talk, state: Path) -> None:
    with pytest.raises(JoinRefused, match=r"does not speak platformctl\.join\.v1"):
        await talk(subprotocol=False)


Plain = Callable[..., Awaitable[int]]


@pytest.fixture
async def plain(context: ssl.SSLContext) -> AsyncIterator[Plain]:
    """A server that answers the first bytes with `answer` and hangs up; with None it says nothing at all."""
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []

    async def start(*replies: bytes | None, tls: bool = True) -> int:
        left = list(replies)

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            try:
                await reader.read(1000)
            except OSError:
                return
            answer = left.pop(0) if len(left) > 1 else left[0]
            if answer is not None:
                writer.write(answer)
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context if tls else None)
        servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    yield start
    for server in servers:
        server.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)


def http(body: bytes, status: str = "200 OK", length: bool = True) -> bytes:
    size = f"Content-Length: {len(body)}\r\n" if length else ""
    return f"HTTP/1.1 {status}\r\n{size}\r\n".encode() + body


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (http(b"", "404 Not Found"), r"is not a hub's tunnel address \(it answered 404\)"),
        (http(b"<html>"), r"\(it sent no CA\)"),
        (http(b"<html>", length=False), r"\(it sent no CA\)"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", r"\(no HTTP answer\)"),
        (b"HTTP/1.1 many\r\n\r\n", r"\(no HTTP answer\)"),
        (b"", r"\(no HTTP answer\)"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000, r"\(no HTTP answer\)"),
    ],
)
async def test_what_is_not_a_hub_is_said_not_to_be_one(plain: Plain, state: Path, reply: bytes, message: str) -> None:
    port = await plain(reply)

    with pytest.raises(JoinRefused, match=message) as caught:
        await join(f"wss://localhost:{port}", "t", PIN, "edge-1", {}, state, entropy=secrets.token_bytes)

    assert "tunnel address" in caught.value.hint


async def test_a_server_that_has_the_ca_but_takes_no_joins_gets_no_token(plain: Plain, state: Path) -> None:
    port = await plain(http(CA.cert_pem), http(b"no", "404 Not Found"))

    with pytest.raises(JoinRefused, match="does not take joins"):
        await join(f"wss://localhost:{port}", "t", PIN, "edge-1", {}, state, entropy=secrets.token_bytes)


async def test_a_server_that_hangs_up_on_the_join_is_said_to(plain: Plain, state: Path) -> None:
    port = await plain(http(CA.cert_pem), b"")

    with pytest.raises(HubUnreachable, match="hung up on the join"):
        await join(f"wss://localhost:{port}", "t", PIN, "edge-1", {}, state, entropy=secrets.token_bytes)


async def test_a_port_without_tls_is_said_to_be_one(plain: Plain, state: Path) -> None:
    port = await plain(b"HTTP/1.1 400 Bad Request\r\n\r\n", tls=False)

    with pytest.raises(JoinRefused, match=r"does not speak TLS 1.3"):
        await join(f"wss://localhost:{port}", "t", PIN, "edge-1", {}, state, entropy=secrets.token_bytes)


async def test_a_server_that_never_answers_is_given_up_on(plain: Plain, state: Path) -> None:
    port = await plain(None)

    with pytest.raises(HubUnreachable, match=r"did not answer in 0.2 s"):
        await join(f"wss://localhost:{port}", "t", PIN, "edge-1", {}, state, entropy=secrets.token_bytes, timeout=0.2)
    assert os.listdir(state) == []


def test_an_identity_that_is_not_committed_leaves_the_old_one(tmp_path: Path) -> None:
    with NewIdentity(tmp_path, b"old key") as new:
        new.commit(b"old cert", b"old ca")
    with pytest.raises(ValueError, match="stop"), NewIdentity(tmp_path, b"new key"):
        raise ValueError("stop")

    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        "identity.key": b"old key",
        "identity.crt": b"old cert",
        "ca.pem": b"old ca",
    }


def test_a_link_that_was_laid_in_the_way_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / f".identity.key.{os.getpid()}").symlink_to(victim)

    with NewIdentity(folder, b"key") as new:
        new.commit(b"cert", b"ca")

    assert victim.read_text() == "precious"
    assert (folder / "identity.key").read_bytes() == b"key"


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("platformctl.satellite.identity_files.os.fsync", full)

    with pytest.raises(StoreError, match="No space left"), NewIdentity(tmp_path, b"key"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_commit_that_cannot_rename_says_so(tmp_path: Path) -> None:
    (tmp_path / "identity.crt" / "in the way").mkdir(parents=True)

    with pytest.raises(StoreError, match="cannot write"), NewIdentity(tmp_path, b"key") as new:
        new.commit(b"cert", b"ca")
    assert sorted(os.listdir(tmp_path)) == ["identity.crt"]
