"""What transports leave to their users: to read on after a pause, and to cut so that the other end notices."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Any, Final

__all__ = ["cut", "needs_care", "read_on"]

# on, 0 seconds: closing sends RST and drops what was not sent yet.
_RESET: Final = struct.pack("ii", 1, 0)


def cut(transport: asyncio.Transport) -> None:
    """End a connection so that the peer gets a reset, where `abort` alone may look like an orderly end.

    A body that ends with its connection would seem whole otherwise (RFC 9112 8).
    """
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def needs_care(transport: asyncio.BaseTransport) -> bool:
    """Whether `read_on` must be used to resume reading, from the event loop, for it may deliver before it returns.

    aiofastnet 1.2.0 forgets what its TLS transport had read from the socket but not decrypted yet when reading was
    paused: `resume_reading` waits for more from the socket, and when the peer has sent everything, that is for ever; a
    full buffer even ends the connection.
    """
    return hasattr(transport, "_retry_ssl_read")


def read_on(transport: Any) -> None:
    """`resume_reading`, and what the transport holds already."""
    transport.resume_reading()
    transport._retry_ssl_read()
