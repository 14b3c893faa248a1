"""A hub replica's configuration file (YAML), checked against `hub-config.schema.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

from platformctl.document import Document, parse, seconds
from platformctl.errors import ConfigError
from platformctl.net.address import Address

__all__ = ["Advertise", "AuditConfig", "HubConfig", "Listeners", "LogConfig", "ServerTls", "TcpPort", "Timeouts"]

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class TcpPort:
    """A port of the hub that is one TCP service."""

    address: Address
    satellite: str
    service: str


@dataclass(frozen=True, slots=True)
class Listeners:
    """Each of them optional, and as many as wanted."""

    public: tuple[Address, ...] = ()
    http: tuple[Address, ...] = ()
    tunnel: tuple[Address, ...] = ()
    health: tuple[Address, ...] = ()
    sni: tuple[Address, ...] = ()
    tcp: tuple[TcpPort, ...] = ()


@dataclass(frozen=True, slots=True)
class Advertise:
    """URLs without a slash at the end; "" where the listener's own address is to be told."""

    tunnel_url: str = ""
    public_url: str = ""
    http_url: str = ""
    metrics_url: str = ""


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """`path` None: nowhere; "-": standard output. `decisions`: denied or all."""

    path: Path | None = None
    decisions: str = "denied"


@dataclass(frozen=True, slots=True)
class ServerTls:
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class LogConfig:
    """`format`: auto (console on a terminal, json elsewhere), json or console; `level`: debug to error."""

    format: str = "auto"
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `head`: to complete a request head; `idle`: between requests; `drain`: for streams to finish."""

    head: float = 10.0
    idle: float = 75.0
    drain: float = 30.0


@dataclass(frozen=True, slots=True)
class HubConfig:
    """Paths are absolute: relative ones count from the file's folder. `ping_interval`: seconds, 0.1 to 60."""

    id: str
    state: Path
    domain: str
    trust_domain: str
    listeners: Listeners
    approval: str = "auto"
    advertise: Advertise = Advertise()
    policy: Path | None = None
    audit: AuditConfig = AuditConfig()
    tls: ServerTls | None = None
    log: LogConfig = LogConfig()
    reuse_port: bool = False
    timeouts: Timeouts = Timeouts()
    ping_interval: float = 5.0
    trusted_proxies: tuple[Network, ...] = ()
    sample_ratio: float = 0.01

    @classmethod
    def from_file(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> HubConfig:
        """Raises ConfigError. `overrides` has the file's shape and wins, key by key."""
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"cannot be read: {e}", source=str(path)) from e
        return cls.from_text(text, str(path), path.absolute().parent, overrides)

    @classmethod
    def from_text(cls, text: str, source: str, folder: Path, overrides: Mapping[str, Any] | None = None) -> HubConfig:
        document = parse(text, source, _schema(), overrides)
        data = document.data
        ping = seconds(data.get("ping_interval", 5.0))
        if not 0.1 <= ping <= 60:
            raise document.error(("ping_interval",), f"must be between 100ms and 60s, not {ping:g}s")
        tls = data.get("tls")
        return cls(
            id=data["id"],
            state=folder / data["state"],
            domain=data["domain"],
            trust_domain=data.get("trust_domain", data["domain"]),
            listeners=_listeners(document),
            approval=data.get("approval", "auto"),
            advertise=Advertise(**{key: url.rstrip("/") for key, url in data.get("advertise", {}).items()}),
            policy=folder / data["policy"] if "policy" in data else None,
            audit=_audit(data.get("audit", {}), folder),
            tls=ServerTls(folder / tls["cert"], folder / tls["key"]) if tls else None,
            log=LogConfig(**data.get("log", {})),
            reuse_port=data.get("reuse_port", False),
            timeouts=Timeouts(**{key: seconds(value) for key, value in data.get("timeouts", {}).items()}),
            ping_interval=ping,
            trusted_proxies=_networks(document),
            sample_ratio=float(data.get("tracing", {}).get("sample_ratio", 0.01)),
        )


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((files(__package__) / "hub-config.schema.json").read_text("utf-8"))
    return schema


def _audit(data: dict[str, Any], folder: Path) -> AuditConfig:
    path = data.get("path")
    where = None if path is None else Path("-") if path == "-" else folder / path
    return AuditConfig(where, data.get("decisions", "denied"))


def _listeners(document: Document) -> Listeners:
    given = document.data["listeners"]
    kinds: dict[str, Any] = {}
    taken: dict[Address, str] = {}
    for kind, entries in given.items():
        found = []
        for index, entry in enumerate(entries):
            at = ("listeners", kind, index, "address")
            try:
                address = Address.parse(entry["address"])
            except ValueError as e:
                raise document.error(at, str(e)) from e
            if address.port and address in taken:
                raise document.error(at, f"{address} is taken by the {taken[address]} listener already")
            taken[address] = kind
            found.append(TcpPort(address, entry["satellite"], entry["service"]) if kind == "tcp" else address)
        kinds[kind] = tuple(found)
    return Listeners(**kinds)


def _networks(document: Document) -> tuple[Network, ...]:
    networks = []
    for index, text in enumerate(document.data.get("trusted_proxies", [])):
        try:
            networks.append(ip_network(text))
        except ValueError as e:
            raise document.error(("trusted_proxies", index), f"is not a CIDR: {e}") from e
    return tuple(networks)
