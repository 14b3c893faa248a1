"""An HTTP server that reads request bodies as fast as loopback gives them and keeps nothing: the upload backend.

nginx answers an upload before it has read it, or copies it to a proxied server; both would measure something else.
Run as `python -m tests.bench.sink PORT`. It answers 200 with the number of body bytes as text, 411 without a
Content-Length (RFC 9110, 15.5.12).
"""

from __future__ import annotations

import socket
import sys
import threading

_READ_SIZE = 1 << 20


def serve_connection(connection: socket.socket) -> None:
    """Answer requests on one connection until the client closes it."""
    room = bytearray(_READ_SIZE)
    view = memoryview(room)
    pending = b""
    with connection:
        while True:
            while b"\r\n\r\n" not in pending:
                more = connection.recv(65536)
                if not more:
                    return
                pending += more
            head, _, pending = pending.partition(b"\r\n\r\n")
            length = content_length(head)
            if length is None:
                connection.sendall(b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            left = length - len(pending)
            pending = pending[length:] if left < 0 else b""
            while left > 0:
                got = connection.recv_into(view, min(left, _READ_SIZE))
                if not got:
                    return
                left -= got
            answer = str(length).encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))


def content_length(head: bytes) -> int | None:
    """The declared body length of a request head: 0 for a GET without one, None when a body has no length."""
    chunked = False
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
        chunked = chunked or name.lower() == b"transfer-encoding"
    return None if chunked else 0


def main(port: int) -> None:
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_connection, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]))
