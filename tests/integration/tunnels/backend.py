"""A backend process: answers at once, after a while (`/slow/SECONDS`), or with many bytes (`/bytes/N`)."""

from __future__ import annotations

import asyncio
import sys

PIECE = b"x" * 65536


class Connection(asyncio.Protocol):
    """HTTP/1.1 as far as the agent speaks it: a head, and a body of a known length that is thrown away."""

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0
        self._full = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            self._answer(head.split(b" ", 2)[1].decode().partition("?")[0])

    def _answer(self, path: str) -> None:
        _, _, argument = path.rpartition("/")
        if path.startswith("/slow/"):
            asyncio.get_running_loop().call_later(float(argument), self._send, b"slow\n")
        elif path.startswith("/bytes/"):
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % int(argument))
            self._left = int(argument)
            self._pour()
        else:
            self._send(b"hello\n")

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._pour()

    def _pour(self) -> None:
        while self._left and not self._full and not self._transport.is_closing():
            piece = PIECE[: self._left]
            self._left -= len(piece)
            self._transport.write(piece)

    def _send(self, body: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
