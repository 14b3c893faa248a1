"""The server name of a TLS ClientHello (RFC 8446 4.1.2, RFC 6066 3), read without taking part in the handshake."""

from __future__ import annotations

from typing import Final

_HANDSHAKE: Final = 0x16
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0
_MAX_RECORD: Final = 16 * 1024 + 256


class NeedMore(Exception):
    """The ClientHello is not complete yet."""


class NotTls(Exception):
    """These bytes are not a ClientHello with a server name."""


class _Reader:
    """A cursor that raises NotTls instead of reading past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, n: int) -> bytes:
        end = self._at + n
        if end > len(self._data):
            raise NotTls("a length points past its end")
        found = self._data[self._at : end]
        self._at = end
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))


def server_name(data: bytes) -> str:
    """The host name in the first bytes of a TLS connection.

    Raises:
        NeedMore: too few bytes so far.
        NotTls: something else, or a ClientHello without a name.
    """
    hello = _Reader(_handshake(data))
    hello.take(2 + 32)  # version, random
    hello.vector(1)  # session id
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression methods
    if not hello:
        raise NotTls("no extensions")
    extensions = _Reader(hello.vector(2))
    while extensions:
        kind = extensions.number(2)
        body = extensions.vector(2)
        if kind == _SERVER_NAME:
            names = _Reader(_Reader(body).vector(2))
            while names:
                name_kind = names.number(1)
                name = names.vector(2)
                if name_kind == _HOST_NAME:
                    if not name.isascii():
                        raise NotTls("a server name that is not ASCII")
                    return name.decode("ascii")
    raise NotTls("no server name")


def _handshake(data: bytes) -> bytes:
    """The body of the ClientHello, put together from its records."""
    message = b""
    at = 0
    while True:
        if len(data) - at < 5:
            if data[at : at + 1] not in (b"", b"\x16"):
                raise NotTls("no handshake record")
            raise NeedMore
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at] != _HANDSHAKE or data[at + 1] != 3 or not 0 < size <= _MAX_RECORD:
            raise NotTls("no handshake record")
        if len(data) - at - 5 < size:
            raise NeedMore
        message += data[at + 5 : at + 5 + size]
        at += 5 + size
        if message[0] != _CLIENT_HELLO:
            raise NotTls("no ClientHello")
        if len(message) >= 4:
            length = int.from_bytes(message[1:4], "big")
            if len(message) >= 4 + length:
                return message[4 : 4 + length]
