from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from platformctl.cli.client import HubClient, read_token, tls_context
from platformctl.errors import AccessDenied, ConfigError, Conflict, HubUnreachable, NotFound, PlatformError, UsageError
from tests.unit.cli.conftest import FakeHub


def test_all_pages_of_a_list_are_fetched_on_one_connection(hub: FakeHub) -> None:
    hub.answers["GET /api/v1/things"] = (200, {"items": [{"n": 1}], "next": "a b"})
    hub.answers["GET /api/v1/things?continue=a+b"] = (200, {"items": [{"n": 2}], "next": None})
    with HubClient(hub.url) as client:
        assert client.items("things") == [{"n": 1}, {"n": 2}]


def test_the_token_is_sent_as_bearer(hub: FakeHub, token_file: Path) -> None:
    hub.answers["POST /api/v1/tokens"] = (201, {"id": "x"})
    hub.answers["DELETE /api/v1/tokens/a%2Fb"] = (204, b"")
    with HubClient(hub.url, token_file=token_file) as client:
        assert client.post("tokens", {"satellite": "s"}) == {"id": "x"}
        client.delete("tokens", "a/b")
    assert [asked.authorization for asked in hub.asked] == ["Bearer ct-abc.secret"] * 2
    assert hub.asked[0].body == {"satellite": "s"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UsageError),
        (401, AccessDenied),
        (403, AccessDenied),
        (404, NotFound),
        (409, Conflict),
        (422, UsageError),
        (503, HubUnreachable),
        (500, PlatformError),
    ],
)
def test_a_refusal_becomes_the_error_that_it_is(status: int, kind: type[PlatformError], hub: FakeHub) -> None:
    hub.answers["GET /api/v1/x"] = (status, {"detail": "why", "hint": "do", "code": "c-1", "request_id": "r-9"})
    with HubClient(hub.url) as client, pytest.raises(kind) as caught:
        client.get("x")
    assert type(caught.value) is kind
    assert caught.value.message == f"the hub at {hub.url} answered {status}: why (request r-9)"
    assert caught.value.code == "c-1"
    assert caught.value.hint == (
        "Give a token with --token-file, or a context that has one." if status == 401 else "do"
    )


def test_a_missing_token_has_a_hint_in_words_of_this_command(hub: FakeHub) -> None:
    hub.answers["GET /api/v1/x"] = (401, {"detail": "who?", "hint": "Send Authorization: Bearer"})
    with HubClient(hub.url) as client, pytest.raises(AccessDenied) as caught:
        client.get("x")
    assert "--token-file" in caught.value.hint


def test_what_is_no_problem_document_is_cut_and_made_printable(hub: FakeHub) -> None:
    hub.answers["GET /api/v1/x"] = (500, b"\x1b[31m" + b"x" * 1000)
    with HubClient(hub.url) as client, pytest.raises(PlatformError) as caught:
        client.get("x")
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 500


def test_an_answer_that_is_not_json_is_not_a_hub(hub: FakeHub) -> None:
    hub.answers["GET /api/v1/x"] = (200, b"<html>")
    with HubClient(hub.url) as client, pytest.raises(HubUnreachable, match="is not a hub"):
        client.get("x")


def test_a_closed_port_is_told_as_such() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with HubClient(f"http://127.0.0.1:{port}") as client, pytest.raises(HubUnreachable, match="nothing listens there"):
        client.get("x")


def test_a_silent_hub_is_told_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with HubClient(url, timeout=0.05) as client, pytest.raises(HubUnreachable, match="no answer in time"):
            client.get("x")


def test_a_name_that_does_not_resolve_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with HubClient("http://nowhere.invalid") as client, pytest.raises(HubUnreachable, match="does not resolve"):
        client.get("x")


@pytest.mark.parametrize("url", ["hub.example", "ftp://hub.example", "https://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a hub"):
        HubClient(url)


def test_a_token_is_not_sent_over_plain_http_to_another_machine(token_file: Path) -> None:
    with pytest.raises(UsageError, match="not sent over plain HTTP"):
        HubClient("http://hub.example", token_file=token_file)
    HubClient("http://hub.localhost:1", token_file=token_file)


@pytest.mark.parametrize("content", [b"", b"  \n", b"two words", "tokén".encode()])
def test_a_file_that_cannot_be_a_token_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not a token file"):
        read_token(path)


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gone: the token cannot be read"):
        read_token(tmp_path / "gone")


@pytest.mark.parametrize(("content", "message"), [(None, "there is no such CA file"), ("junk", "is not a readable CA")])
def test_a_wrong_ca_file_is_named(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        tls_context(path)


class _Empty(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure_url(authority: trustme.CA) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that refuses our certificate is the point

    server = Server(("127.0.0.1", 0), _Empty)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_is_believed_by_its_ca(authority: trustme.CA, secure_url: str, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with HubClient(secure_url, ca_file=tmp_path / "ca.pem") as client:
        assert client.get("x") == {}


def test_a_hub_of_another_ca_is_not_believed(secure_url: str, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    with HubClient(secure_url, ca_file=tmp_path / "other.pem") as client, pytest.raises(HubUnreachable) as caught:
        client.get("x")
    assert "certificate" in caught.value.message
    assert "--ca-file" in caught.value.hint
