"""A hub's control API on loopback that answers what a test tells it to, and the command line run in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from platformctl.cli.app import run


@dataclass
class Asked:
    method: str
    path: str
    authorization: str | None
    body: Any


@dataclass
class FakeHub:
    """`answers` maps "METHOD /path?query" to (status, document); each question is kept in `asked`."""

    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def lists(self, path: str, *items: dict[str, Any]) -> None:
        self.answers[f"GET /api/v1/{path}"] = (200, {"items": list(items), "next": None})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.hub.asked.append(Asked(self.command, self.path, self.headers.get("Authorization"), body))
        missing = (404, {"detail": f"nothing at {self.path}", "code": "not-found", "hint": "", "request_id": "r-1"})
        status, document = self.hub.answers.get(f"{self.command} {self.path}", missing)
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    fake = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": fake}))
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*args: str) -> Outcome:
        code = run(args)
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return call


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "client.token"
    path.write_text("ct-abc.secret\n")
    return path


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config" / "config.yaml"
    monkeypatch.setenv("PLATFORMCTL_CONFIG", str(path))
    return path
