"""Clients and servers that others wrote, through the hub: curl, nginx, httpx, h11, uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h11
import httpx
import pytest
import uvicorn

from tests.integration.data_plane.conftest import ENVIRONMENT, Platform
from tests.integration.data_plane.peers import Peer

pytestmark = pytest.mark.integration

MIB = 1024 * 1024


def listening(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < deadline, f"nothing listens on {port}"
        time.sleep(0.02)


@pytest.fixture
def nginx(platform: Platform, tmp_path: Path) -> Iterator[Path]:
    """nginx behind service `plain`; the folder that it serves."""
    program = shutil.which("nginx", path=ENVIRONMENT["PATH"])
    assert program is not None, "nginx is not installed: tools/test-deps.sh"
    www = tmp_path / "www"
    www.mkdir(mode=0o755)
    for folder in (tmp_path, *tmp_path.parents):
        with contextlib.suppress(PermissionError):
            if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
                folder.chmod(folder.stat().st_mode | 0o111)
    port = platform.services.ports["plain"]
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"""
        daemon off; pid {tmp_path}/pid; error_log stderr warn; worker_processes 1;
        events {{ worker_connections 256; }}
        http {{
          access_log off; client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;
          fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;
          types {{ text/html html; }} default_type application/octet-stream;
          server {{
            listen 127.0.0.1:{port}; root {www};
            client_max_body_size 2m;
            location /moved {{ return 301 /there; }}
            location /nothing {{ return 204; }}
            location /put {{ return 200 "got it"; }}
          }}
        }}
        """
    )
    with subprocess.Popen([program, "-c", str(config), "-e", "stderr"], stderr=subprocess.PIPE) as process:
        try:
            listening(port)
            yield www
        finally:
            process.terminate()
            process.communicate(timeout=10)


def curl(platform: Platform, path: str, *flags: str, kind: str = "public") -> tuple[bytes, dict[str, Any]]:
    """Body and what curl says about the transfer."""
    scheme = "https" if kind == "public" else "http"
    url = f"{scheme}://127.0.0.1:{platform.port(kind)}/s/sat-1/plain{path}"
    command = ["curl", "-sS", "--max-time", "30", "--cacert", platform.env["ca_file"], "-K", "-"]
    command += ["-w", "%{stderr}%{json}", *flags, url]
    done = subprocess.run(
        command, input=f'header = "{platform.auth.strip()}"\n'.encode(), capture_output=True, check=False, timeout=40
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(done.stderr[done.stderr.index(b"{") :])


@pytest.mark.parametrize("kind", ["http", "public"])
def test_curl_and_nginx_do_everything_that_they_do_directly(platform: Platform, nginx: Path, kind: str) -> None:
    page = b"<html>hello</html>" * 1000
    (nginx / "page.html").write_bytes(page)
    (nginx / "empty").write_bytes(b"")
    (nginx / "big").write_bytes(hashlib.sha256(b"x").digest() * (MIB // 2))
    body, said = curl(platform, "/page.html", kind=kind)
    assert (body, said["response_code"], said["content_type"]) == (page, 200, "text/html")
    assert curl(platform, "/empty", kind=kind)[0] == b""
    assert curl(platform, "/missing", kind=kind)[1]["response_code"] == 404
    assert curl(platform, "/nothing", kind=kind)[1]["response_code"] == 204
    moved = curl(platform, "/moved", kind=kind)[1]
    assert moved["response_code"] == 301
    head, said = curl(platform, "/page.html", "-I", kind=kind)
    assert b"ength: %d" % len(page) in head
    part, said = curl(platform, "/page.html", "-r", "6-10", kind=kind)
    assert (part, said["response_code"]) == (b"hello", 206)
    big, _ = curl(platform, "/big", kind=kind)
    assert big == (nginx / "big").read_bytes()
    zipped, said = curl(platform, "/page.html", "--compressed", kind=kind)
    assert zipped == page
    # Several on one connection.
    _, said = curl(platform, "/page.html", "-o", "/dev/null", "--next", "-o", "/dev/null", kind=kind)
    # With Expect: 100-continue, and too large for nginx, which answers before it has read it.
    upload = nginx / "upload"
    upload.write_bytes(b"u" * MIB)
    assert curl(platform, "/put", "-T", str(upload), "-H", "Expect: 100-continue", kind=kind)[1]["response_code"] == 200
    upload.write_bytes(b"u" * (8 * MIB))
    _, said = curl(platform, "/put", "-T", str(upload), "-H", "Expect: 100-continue", kind=kind)
    assert said["response_code"] == 413
    assert said["size_upload"] < 8 * MIB
    _, said = curl(platform, "/put", "-T", str(upload), "-H", "Expect:", kind=kind)
    assert said["response_code"] == 413
    assert curl(platform, "/page.html", "--http1.0", kind=kind)[0] == page


async def test_httpx_keeps_its_connections_and_streams(platform: Platform) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        total = 0
        while True:
            message = await receive()
            total += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for n in range(3):
            await send({"type": "http.response.body", "body": b"data: %d %d\n\n" % (n, total), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(app, "127.0.0.1", platform.services.ports["plain"], log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]

    async def serve() -> None:
        await server.serve()
        await asyncio.sleep(0.1)  # its transports close a turn of the loop later

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        listening(platform.services.ports["plain"])

        async def source() -> Any:
            for _ in range(20):
                yield b"z" * 10_000

        base = f"https://127.0.0.1:{platform.port('public')}/s/sat-1/plain"
        headers = {"Authorization": f"Bearer {platform.token}"}
        async with httpx.AsyncClient(base_url=base, verify=platform.tls(), headers=headers, timeout=10) as client:
            for _ in range(10):
                answer = await client.post("/x", content=b"12345")
                assert answer.text == "data: 0 5\n\ndata: 1 5\n\ndata: 2 5\n\n"
            answer = await client.post("/x", content=source())
            assert "200000" in answer.text
            answers = await asyncio.gather(*(client.get("/x") for _ in range(64)))
            assert {one.status_code for one in answers} == {200}
            async with client.stream("GET", "/x") as stream:
                lines = [line async for line in stream.aiter_lines() if line]
                assert lines[0] == "data: 0 0"
    finally:
        server.should_exit = True
        thread.join(10)


async def test_h11_at_both_ends_agrees_on_every_event(platform: Platform) -> None:
    """h11 checks each byte of both directions against RFC 9112, and raises when something is not right."""

    async def receive(peer: Peer, machine: h11.Connection) -> Any:
        while True:
            event = machine.next_event()
            if event is not h11.NEED_DATA:
                return event
            machine.receive_data(await peer.some())

    async def whole(peer: Peer, machine: h11.Connection) -> tuple[bytes, Any]:
        body = b""
        while isinstance(event := await receive(peer, machine), h11.Data):
            body += bytes(event.data)
        return body, event

    async def script(peer: Peer) -> None:
        machine = h11.Connection(h11.SERVER)
        while True:
            event = await receive(peer, machine)
            if isinstance(event, h11.ConnectionClosed):
                return
            assert isinstance(event, h11.Request)
            body, end = await whole(peer, machine)
            answer = body + b"".join(value for _, value in end.headers)
            chunked = b"chunk" in event.target
            framing = (b"transfer-encoding", b"chunked") if chunked else (b"content-length", b"%d" % len(answer))
            await peer.send(machine.send(h11.InformationalResponse(status_code=103, headers=[(b"link", b"</x>")])))
            await peer.send(machine.send(h11.Response(status_code=200, headers=[framing])))
            if event.method != b"HEAD":
                await peer.send(machine.send(h11.Data(data=answer)))
            await peer.send(machine.send(h11.EndOfMessage(headers=[(b"x-end", b"yes")] if chunked else [])))
            machine.start_next_cycle()

    async with platform.backend("plain", script), await platform.connect("public") as peer:
        machine = h11.Connection(h11.CLIENT)
        for n, (method, target) in enumerate(
            [("POST", "chunk"), ("PUT", "fixed"), ("HEAD", "fixed"), ("POST", "chunk")]
        ):
            body = b"b" * n * 1000
            fields = [("Host", "hub.test"), ("Authorization", f"Bearer {platform.token}")]
            chunked = n % 2 == 0
            fields.append(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body))))
            await peer.send(machine.send(h11.Request(method=method, target=f"/s/sat-1/plain/{target}", headers=fields)))
            if body:
                await peer.send(machine.send(h11.Data(data=body)))
            await peer.send(machine.send(h11.EndOfMessage(headers=[("x-sum", "s")] if chunked else [])))
            hint = await receive(peer, machine)
            assert isinstance(hint, h11.InformationalResponse)
            assert hint.status_code == 103
            response = await receive(peer, machine)
            assert isinstance(response, h11.Response)
            assert response.status_code == 200
            got, end = await whole(peer, machine)
            assert got == (b"" if method == "HEAD" else body + (b"s" if chunked else b""))
            assert [tuple(one) for one in end.headers] == ([(b"x-end", b"yes")] if target == "chunk" else [])
            machine.start_next_cycle()
