from __future__ import annotations

import pytest

from platformctl.routing.spec import ServiceSpec
from platformctl.satellite.exports import Backend, Export
from platformctl.satellite.services import _request
from platformctl.wire.frames import UNKNOWN_LENGTH


def export(scheme: str = "http", host: str = "10.0.0.1", port: int = 8080, base: str = "") -> Export:
    return Export("web", Backend(scheme, host, port, base), ServiceSpec("web"))


def head(to: Export, method: bytes = b"GET", target: bytes = b"/x", length: int = 0, upgrade: bool = False) -> bytes:
    return _request(to, method, target, b"X-A: 1\r\n", length, upgrade)


def test_the_host_is_the_backends() -> None:
    assert head(export()) == b"GET /x HTTP/1.1\r\nHost: 10.0.0.1:8080\r\nX-A: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("to", "host"),
    [
        (export(port=80), b"10.0.0.1"),
        (export("https", port=443), b"10.0.0.1"),
        (export("https", port=80), b"10.0.0.1:80"),
        (export(host="::1"), b"[::1]:8080"),
        (export(host="::1", port=80), b"[::1]"),
    ],
)
def test_a_port_is_named_unless_it_is_the_schemes_own(to: Export, host: bytes) -> None:
    assert b"\r\nHost: %b\r\n" % host in head(to)


@pytest.mark.parametrize(
    ("method", "length", "framing"),
    [
        (b"GET", 0, b""),
        (b"DELETE", 0, b""),
        (b"POST", 0, b"Content-Length: 0\r\n"),
        (b"GET", 5, b"Content-Length: 5\r\n"),
        (b"PUT", UNKNOWN_LENGTH, b"Transfer-Encoding: chunked\r\n"),
    ],
)
def test_the_body_is_framed_anew(method: bytes, length: int, framing: bytes) -> None:
    assert head(export(), method, length=length).split(b"8080\r\n")[1] == framing + b"X-A: 1\r\n\r\n"


def test_an_upgrade_says_connection_upgrade_and_no_framing() -> None:
    assert head(export(), b"POST", upgrade=True).split(b"8080\r\n")[1] == b"Connection: Upgrade\r\nX-A: 1\r\n\r\n"


def test_a_base_path_goes_before_a_path_and_nothing_else() -> None:
    to = export(base="/base")
    assert head(to).startswith(b"GET /base/x HTTP/1.1\r\n")
    assert head(to, b"OPTIONS", b"*").startswith(b"OPTIONS * HTTP/1.1\r\n")
