from __future__ import annotations

import contextlib
import ssl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platformctl.hub.client_hello import NeedMore, NotTls, server_name


def hello(name: str | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.maximum_version = version
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


HELLO = hello("db.sat-1.hub.test")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_name_is_what_the_client_asks_for(version: ssl.TLSVersion) -> None:
    assert server_name(hello("db.sat-1.hub.test", version)) == "db.sat-1.hub.test"


def test_every_beginning_of_a_hello_wants_more() -> None:
    for size in range(len(HELLO)):
        with pytest.raises(NeedMore):
            server_name(HELLO[:size])


def test_what_follows_the_hello_does_not_matter() -> None:
    assert server_name(HELLO + b"\x17\x03\x03early data") == "db.sat-1.hub.test"


@pytest.mark.parametrize("size", [1, 3, 50, 200])
def test_a_hello_may_be_spread_over_records(size: int) -> None:
    body = HELLO[5:]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert server_name(b"".join(b"\x16\x03\x01" + struct.pack(">H", len(p)) + p for p in pieces)) == "db.sat-1.hub.test"


def test_a_hello_without_a_name_is_refused() -> None:
    with pytest.raises(NotTls, match="no server name"):
        server_name(hello(None))


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x80\x2e\x01\x00\x02",
        b"\x16\x02\x00\x00\x05\x01",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff\x01",
        b"\x17\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",
        b"SSH-2.0-x\r\n",
        b"\x00",
    ],
)
def test_what_is_no_hello_is_told_at_once(first: bytes) -> None:
    with pytest.raises(NotTls):
        server_name(first)


def test_a_name_that_is_no_ascii_is_refused() -> None:
    with pytest.raises(NotTls, match="ASCII"):
        server_name(HELLO.replace(b"db.sat-1", b"db.s\xc3\xa4-1"))


@given(st.binary(max_size=400))
def test_no_input_breaks_it(data: bytes) -> None:
    with contextlib.suppress(NeedMore, NotTls):
        server_name(data)


@given(st.integers(0, len(HELLO) - 1), st.integers(0, 255))
def test_no_change_of_a_byte_breaks_it(at: int, byte: int) -> None:
    changed = HELLO[:at] + bytes([byte]) + HELLO[at + 1 :]
    with contextlib.suppress(NeedMore, NotTls):
        server_name(changed)
