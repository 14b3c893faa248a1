"""`host:port` as configuration files write it."""

from __future__ import annotations

import os
import ssl
from typing import NamedTuple

from platformctl.errors import excerpt

__all__ = ["Address", "dial_error"]


class Address(NamedTuple):
    """`host` "" is every address of the machine, `port` 0 any free port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """`host:port`, `[v6]:port` or `:port`. Raises ValueError."""
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{excerpt(text)!r}: an IPv6 address goes in brackets, as in [::1]:8443")
        if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(f"{excerpt(text)!r} is not host:port with a port up to 65535")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def dial_error(error: OSError) -> str:
    """Why a connection could not be made, in the system's words: asyncio's own text repeats the address instead."""
    if isinstance(error, ssl.SSLError):
        # Errors that OpenSSL did not make have no reason.
        return (getattr(error, "reason", "") or str(error)).replace("_", " ").lower()
    if error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error)
