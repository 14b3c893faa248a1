"""Host names in requests: `Host`, the authority of an absolute request target, and CONNECT's (RFC 3986 section 3.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from platformctl.errors import HeadError, excerpt
from platformctl.routing.names import is_name

__all__ = ["Host", "parse_authority", "parse_host", "split_absolute"]

# A registered name or IPv4 address without percent-encoding, or an IP literal; then an optional port. 253 characters
# and a dot.
_HOST: Final = re.compile(r"([A-Za-z0-9._-]{0,254}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{0,5}))?")
_SCHEME: Final = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Host:
    """The names in `<service>.<satellite>.<domain>`."""

    satellite: str
    service: str


def parse_host(text: str, domain: str) -> Host | None:
    """The service that a `Host` value names, None if it names the hub itself. Raises HeadError 400 or 404.

    The hub itself is the domain, one label under it (a replica), and every name outside it (an address, a load
    balancer's name).
    """
    name = _split(text)[0]
    if ".." in name or name.startswith(".") or name.endswith("."):
        raise _invalid(text)
    if name == domain or not name.endswith("." + domain):
        return None
    labels = name[: -len(domain) - 1].split(".")
    if not all(is_name(label) for label in labels):
        raise _invalid(text)
    if len(labels) > 2:
        raise HeadError(404, "host-unknown", f"{excerpt(text)} is not <service>.<satellite>.{domain}")
    return Host(labels[1], labels[0]) if len(labels) == 2 else None


def parse_authority(text: str) -> str:
    """The name in CONNECT's `name:port`, in lower case without a trailing dot. Raises HeadError 400."""
    name, port = _split(text)
    if not name or not port or not 0 < int(port) < 65536:
        raise HeadError(400, "authority-invalid", f"'{excerpt(text)}' is not <name>:<port>")
    return name


def split_absolute(target: str) -> tuple[str, str]:
    """(authority, origin form) of an absolute request target, as `http://host:port/path?query`. Raises HeadError
    400."""
    match = _SCHEME.match(target)
    if match is None:
        raise HeadError(400, "target-invalid", "the request target is neither a path nor an http URL")
    start = match.end()
    end = min((at for at in (target.find("/", start), target.find("?", start)) if at >= 0), default=len(target))
    authority = target[start:end]
    if not _split(authority)[0]:
        raise HeadError(400, "target-invalid", "the URL in the request line names no host")
    rest = target[end:]
    return authority, rest if rest.startswith("/") else "/" + rest


def _split(text: str) -> tuple[str, str]:
    match = _HOST.fullmatch(text)
    if match is None:
        raise _invalid(text)
    return match[1].lower().removesuffix("."), match[2] or ""


def _invalid(text: str) -> HeadError:
    # What is before "@" would be a user's name and password: never shown.
    return HeadError(400, "host-invalid", f"'{excerpt(text.rpartition('@')[2])}' is not a host name")
