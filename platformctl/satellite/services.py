"""What this satellite serves, and how an opened stream finds its backend."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from platformctl.errors import FrameError
from platformctl.net.deadlines import Deadlines
from platformctl.satellite.backend_http import HttpBackend, HttpCall
from platformctl.satellite.backend_tcp import TcpBackend
from platformctl.satellite.pool import BackendPool
from platformctl.wire import frames
from platformctl.wire.heads import split_block

if TYPE_CHECKING:
    from collections.abc import Iterable

    from platformctl.satellite.exports import Export
    from platformctl.wire.stream import Stream

_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!\"$-~]+)\r\n")


class Services:
    """The exports in force, with a connection pool for each http backend."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.exports: dict[str, Export] = {}
        self._deadlines = deadlines
        self._pools: dict[str, BackendPool] = {}

    def update(self, changed: Iterable[Export], removed: Iterable[str]) -> None:
        """Apply a change of the exports file; calls in progress end on the connections that they have."""
        for name in removed:
            self.exports.pop(name, None)
            self._drop_pool(name)
        for export in changed:
            self.exports[export.name] = export
            self._drop_pool(export.name)
            if export.backend.scheme != "tcp":
                self._pools[export.name] = BackendPool(export, self._deadlines, HttpBackend)

    def _drop_pool(self, name: str) -> None:
        pool = self._pools.pop(name, None)
        if pool is not None:
            pool.close()

    def close(self) -> None:
        for name in list(self._pools):
            self._drop_pool(name)

    def open(self, stream: Stream, payload: bytes, end: bool) -> None:
        """Serve an OPEN frame.

        Raises:
            FrameError: the hub sent a malformed OPEN.
        """
        kind, service, length, head = frames.parse_open(payload)
        export = self.exports.get(service)
        if export is None:
            stream.reset(frames.UNKNOWN_SERVICE)
            return
        if kind == frames.KIND_TCP:
            if export.backend.scheme != "tcp":
                stream.reset(frames.UNKNOWN_SERVICE)
                return
            TcpBackend(export, stream, self._deadlines)
            return
        pool = self._pools.get(service)
        if pool is None:
            stream.reset(frames.UNKNOWN_SERVICE)
            return
        line = _REQUEST_LINE.match(head)
        if line is None:
            raise FrameError(frames.PROTOCOL, "OPEN without a request line")
        fields = head[line.end() :]
        split_block(fields)  # well-formed lines only: nothing that could start a second request
        method = line.group(1)
        upgrade = kind == frames.KIND_UPGRADE
        call = HttpCall(
            pool, stream, method, _request(export, method, line.group(2), fields, length, upgrade), length, upgrade
        )
        stream.sink = call
        pool.inflight += 1
        pool.run(call)


def _request(export: Export, method: bytes, target: bytes, fields: bytes, length: int, upgrade: bool) -> bytes:
    """The request head as the backend gets it, with Host and framing of our own."""
    backend = export.backend
    host = f"[{backend.host}]" if ":" in backend.host else backend.host
    standard = {"http": 80, "https": 443}[backend.scheme] == backend.port
    framing = b""
    if upgrade:
        framing = b"Connection: Upgrade\r\n"
        if length > 0:
            framing += b"Content-Length: %d\r\n" % length
    elif length == frames.UNKNOWN_LENGTH:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif length or method in (b"POST", b"PUT", b"PATCH"):
        framing = b"Content-Length: %d\r\n" % length
    if backend.base and target.startswith(b"/"):
        target = backend.base.encode("ascii") + target
    authority = host if standard else f"{host}:{backend.port}"
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (method, target, authority.encode("ascii"), framing, fields)
