"""What a request is for: from its host, path and headers to a target.

Rules, first match wins (DESIGN, "Addressing"):
1. Host `<service>.<satellite>.<domain>`: that service; the path is the service's own. Headers cannot redirect it, so
   that a page of one origin cannot reach another one's service.
2. Header `Platform-Service`, with an optional `Platform-Selector`: any satellite that matches.
3. Path `/s/<satellite>/<service>/...`: that service, the prefix stripped.
4. Paths of the hub itself: `/api`, `/console`, `/mcp`, `/k` and what is below them.
5. Anything else: 404.

A satellite's or service's name in an address is taken literally: percent-encoding, dots and slashes in it are
refused, so no two spellings of one address exist. What follows is the backend's, and passed on untouched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from platformctl.errors import HeadError, excerpt
from platformctl.routing.hosts import Host, parse_authority, parse_host, split_absolute
from platformctl.routing.names import is_domain, is_name
from platformctl.routing.selector import EVERYTHING, Selector, SelectorError, parse_selector

__all__ = ["LOCAL_PREFIXES", "Addressing", "LocalTarget", "SelectorTarget", "ServiceTarget", "Target"]

LOCAL_PREFIXES: Final = ("/api", "/console", "/mcp", "/k")
REMEMBERED: Final = 4096  # of hosts, prefixes and selectors each; forgotten all at once, for attackers choose them


@dataclass(slots=True)
class ServiceTarget:
    """A named service. `path`: request target for the backend (with query); `prefix`: for X-Forwarded-Prefix, "" if
    none was stripped."""

    satellite: str
    service: str
    path: str
    prefix: str = ""


@dataclass(slots=True)
class SelectorTarget:
    """Any satellite with this service that `selector` matches."""

    service: str
    selector: Selector
    path: str


@dataclass(slots=True)
class LocalTarget:
    """The hub itself: control API, console, MCP gateway, Kubernetes gateway."""

    path: str


Target: TypeAlias = ServiceTarget | SelectorTarget | LocalTarget


class Addressing:
    """Reads addresses under one hub domain (`hub.example.com`, or `localhost` in local mode). Raises ValueError for a
    bad domain."""

    __slots__ = ("_hosts", "_local", "_prefixes", "_remembered", "_selectors", "domain")

    def __init__(self, domain: str, local: tuple[str, ...] = LOCAL_PREFIXES, remembered: int = REMEMBERED) -> None:
        self.domain: str = domain.lower().removesuffix(".")
        if not is_domain(self.domain):
            raise ValueError(f"'{excerpt(domain)}' is not a domain name")
        self._local = local
        self._remembered = remembered
        self._hosts: dict[str, Host | None] = {}
        self._prefixes: dict[str, tuple[str, str]] = {}
        self._selectors: dict[str, Selector] = {}

    def target(
        self,
        host: bytes | str,
        path: str,
        service_header: bytes | str | None = None,
        selector_header: bytes | str | None = None,
    ) -> Target:
        """What a request is for; its `path` is the raw request target in origin, absolute or asterisk form (RFC 9112
        section 3.2).

        In absolute form the authority counts and `host` is ignored, as section 3.2.2 demands. Raises HeadError 400 or
        404.
        """
        if not path.startswith("/") and path != "*":
            host, path = split_absolute(path)
        service = self._host(host if isinstance(host, str) else host.decode("latin-1"))
        if service is not None:
            return ServiceTarget(service.satellite, service.service, path)
        if service_header is not None:
            return self._selected(service_header, selector_header, path)
        if selector_header is not None:
            raise HeadError(400, "selector-without-service", "Platform-Selector needs Platform-Service beside it")
        if path.startswith("/s/"):
            return self._by_path(path)
        for local in self._local:
            if path.startswith(local) and (len(path) == len(local) or path[len(local)] in "/?"):
                return LocalTarget(path)
        raise HeadError(404, "path-unknown", "nothing is served here; services are below /s/<satellite>/<service>/")

    def connect(self, authority: str) -> ServiceTarget:
        """The target of CONNECT (RFC 9110 section 9.3.6): `<service>.<satellite>[.<domain>]:<port>`. Raises HeadError
        400 or 404.

        The port must be there and is not used: an exported service has one address.
        """
        name = parse_authority(authority)
        if name == self.domain or name.endswith("." + self.domain):
            host = parse_host(name, self.domain)
        else:
            host = parse_host(f"{name}.{self.domain}", self.domain)
        if host is None:
            raise HeadError(404, "host-unknown", f"{excerpt(authority)} is not <service>.<satellite>:<port>")
        return ServiceTarget(host.satellite, host.service, "")

    def from_sni(self, name: str) -> tuple[str, str] | None:
        """(satellite, service) of a TLS server name (RFC 6066 section 3), None if it is not a service of this hub."""
        try:
            host = self._host(name) if ":" not in name else None
        except HeadError:
            return None
        return None if host is None else (host.satellite, host.service)

    def _host(self, text: str) -> Host | None:
        hosts = self._hosts
        if text in hosts:
            return hosts[text]
        host = parse_host(text, self.domain)
        if len(hosts) >= self._remembered:
            hosts.clear()
        hosts[text] = host
        return host

    def _by_path(self, path: str) -> ServiceTarget:
        """`/s/<satellite>/<service>` followed by `/`, `?` or nothing."""
        query = path.find("?")
        end = len(path) if query < 0 else query
        middle = path.find("/", 3, end)
        stop = -1 if middle < 0 else path.find("/", middle + 1, end)
        if stop < 0:
            stop = end
        prefix = path[:stop]
        names = self._prefixes.get(prefix)
        if names is None:
            names = _names(prefix)
            if len(self._prefixes) >= self._remembered:
                self._prefixes.clear()
            self._prefixes[prefix] = names
        rest = path[stop:]
        return ServiceTarget(names[0], names[1], rest if rest.startswith("/") else "/" + rest, prefix)

    def _selected(self, service_header: bytes | str, selector_header: bytes | str | None, path: str) -> SelectorTarget:
        service = _text(service_header)
        if not is_name(service):
            raise HeadError(400, "name-invalid", f"Platform-Service: '{excerpt(service)}' is not a service name")
        if selector_header is None:
            return SelectorTarget(service, EVERYTHING, path)
        text = _text(selector_header)
        selector = self._selectors.get(text)
        if selector is None:
            try:
                selector = parse_selector(text)
            except SelectorError as e:
                raise HeadError(400, "selector-invalid", f"Platform-Selector: {e}") from e
            if len(self._selectors) >= self._remembered:
                self._selectors.clear()
            self._selectors[text] = selector
        return SelectorTarget(service, selector, path)


def _names(prefix: str) -> tuple[str, str]:
    """The names in `/s/<satellite>/<service>`. Raises HeadError 400 for a bad name, 404 for a missing one."""
    parts = prefix.split("/")[2:]
    for kind, part in zip(("satellite", "service"), parts, strict=False):
        if part and not is_name(part):
            raise HeadError(400, "name-invalid", f"'{excerpt(part)}' in the path is not a {kind} name")
    if len(parts) < 2 or not parts[1]:
        raise HeadError(404, "path-unknown", "the path of a service is /s/<satellite>/<service>/")
    if not parts[0]:
        raise HeadError(400, "name-invalid", "the satellite name in the path is empty")
    return parts[0], parts[1]


def _text(header: bytes | str) -> str:
    return (header if isinstance(header, str) else header.decode("latin-1")).strip(" \t")
