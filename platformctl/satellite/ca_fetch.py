"""Fetch the hub's CA over a connection that nobody has verified yet, and believe it only if it has the pinned key.

Nothing secret goes out on that connection: one GET, no header that says who asks.
"""

from __future__ import annotations

import asyncio
import ssl
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from platformctl.access.pins import check_pin
from platformctl.errors import HubUnreachable, JoinRefused, UsageError, excerpt
from platformctl.net.address import dial_error
from platformctl.net.joining import CA_PATH, MAX_CA
from platformctl.net.tls import fetch_context

__all__ = ["FetchedCa", "HubAddress", "fetch_ca"]

NOT_A_HUB = "Give the hub's tunnel address, as printed by `platformctl token create`."


class HubAddress(NamedTuple):
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> HubAddress:
        """`wss://host[:port]` or `https://host[:port]`. Raises UsageError."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in ("wss", "https") or not host or parts.path not in ("", "/") or "@" in parts.netloc:
            raise UsageError(f"{excerpt(url)!r} is not a tunnel address", hint=f"wss://host:port. {NOT_A_HUB}")
        return cls(host, port or 443)

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class FetchedCa(NamedTuple):
    """`pem` has those of the hub's CAs that the pin is of. `date` is the hub's clock in Unix seconds, not verified:
    good for a hint and nothing else; None if it did not say.
    """

    pem: str
    date: float | None


async def fetch_ca(hub: HubAddress, pin: str) -> FetchedCa:
    """Raises HubUnreachable, JoinRefused (no hub there, or another CA than the pinned one), UsageError (a bad pin)."""
    status, date, body = await _get(hub)
    if status != 200:
        raise JoinRefused(f"{hub.authority} is not a hub's tunnel address (it answered {status})", hint=NOT_A_HUB)
    try:
        bundle = x509.load_pem_x509_certificates(body)
    except ValueError as e:
        raise JoinRefused(f"{hub.authority} is not a hub's tunnel address (it sent no CA)", hint=NOT_A_HUB) from e
    refused: JoinRefused | None = None
    pinned = []
    for each in bundle:
        try:
            check_pin(each.public_bytes(Encoding.DER), pin)
            pinned.append(each.public_bytes(Encoding.PEM).decode())
        except JoinRefused as e:
            refused = refused or e
    if not pinned:
        assert refused is not None  # the loader gives one certificate at least
        raise refused
    return FetchedCa("".join(pinned), date)


async def _get(hub: HubAddress) -> tuple[int, float | None, bytes]:
    try:
        reader, writer = await asyncio.open_connection(hub.host, hub.port, ssl=fetch_context(), limit=MAX_CA)
    except ssl.SSLError as e:
        raise JoinRefused(f"{hub.authority} does not speak TLS 1.3 ({dial_error(e)})", hint=NOT_A_HUB) from e
    except OSError as e:
        raise HubUnreachable(
            f"nothing answers at {hub.authority}: {dial_error(e)}", hint="Check the address, and that the hub runs."
        ) from e
    try:
        writer.write(f"GET {CA_PATH} HTTP/1.1\r\nHost: {hub.authority}\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        status, headers = _parse_head(head)
        length = min(int(headers.get("content-length", MAX_CA)), MAX_CA)
        try:
            body = await reader.readexactly(length)
        except asyncio.IncompleteReadError as e:
            body = e.partial
        return status, _date(headers.get("date", "")), body
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError) as e:
        raise JoinRefused(f"{hub.authority} is not a hub's tunnel address (no HTTP answer)", hint=NOT_A_HUB) from e
    finally:
        writer.transport.abort()


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *rest = head.decode("latin-1").split("\r\n")
    version, _, status = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(version)
    pairs = (line.partition(":") for line in rest)
    return int(status[:3]), {name.strip().lower(): value.strip() for name, _, value in pairs}


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None
