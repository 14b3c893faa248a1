"""A TCP connection to a URL's host, quickly or not at all."""

from __future__ import annotations

import asyncio
import socket
from typing import Final
from urllib.parse import urlsplit

__all__ = ["dial"]

_PORTS: Final = {"wss": 443, "https": 443, "ws": 80, "http": 80}


async def dial(url: str, seconds: float) -> socket.socket:
    """A connected socket. Each of the host's addresses has `seconds`, one after the other.

    Raises:
        OSError, TimeoutError: none of them answers; the last one's error.
    """
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    port = parts.port or _PORTS[parts.scheme]
    error: Exception = OSError(f"{parts.hostname} has no address")
    found = await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setblocking(False)
            async with asyncio.timeout(seconds):
                await loop.sock_connect(connection, address)
            return connection
        except TimeoutError:
            connection.close()
            error = TimeoutError(f"no answer from {parts.hostname} port {port} within {seconds:g} s")
        except OSError as e:
            connection.close()
            error = e
        except BaseException:
            connection.close()
            raise
    raise error
